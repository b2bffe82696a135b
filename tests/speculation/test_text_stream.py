"""Committed bytes -> text to show: stop strings, held-back beginnings, whole characters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from speculation.text.text_stream import TextStream

PIECES = st.lists(st.tuples(st.text("abc猫🐶\0", max_size=4).map(str.encode), st.booleans()), max_size=12)


def show(stream: TextStream, pieces: list[tuple[bytes, bool]]) -> list[tuple[bytes, bool]]:
    runs = [run for text, drafted in pieces for run in stream.push(text, drafted=drafted)]
    return [(run.text, run.drafted) for run in (*runs, *stream.flush())]


@given(pieces=PIECES, cut=st.integers(1, 3))
def test_all_text_comes_out_with_its_marks(pieces: list[tuple[bytes, bool]], cut: int):
    # Cut characters apart, as byte tokens do.
    pieces = [(text[i : i + cut], mark) for text, mark in pieces for i in range(0, len(text), cut)]
    stream = TextStream()
    marks = b"".join(bytes((drafted,)) * len(text) for text, drafted in pieces)
    shown = show(stream, pieces)
    assert b"".join(text for text, _ in shown) == b"".join(text for text, _ in pieces)
    assert b"".join(bytes((drafted,)) * len(text) for text, drafted in shown) == marks


@given(
    text=st.text("aé猫🐶\0"), cuts=st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=40), data=st.data()
)
def test_runs_are_whole_characters_of_those_who_finished_them(text: str, cuts, data: st.DataObject):
    """Wherever tokens begin and end, and whoever wrote them, with and without a stop string that may be completed."""
    left, pieces = text.encode(), []
    for length, drafted in cuts:
        pieces.append((left[:length], drafted))
        left = left[length:]
    pieces = [piece for piece in [*pieces, (left, False)] if piece[0]]
    stops = data.draw(st.lists(st.text("aé猫", min_size=1, max_size=3).map(str.encode), max_size=2))
    shown = show(TextStream(stops), pieces)
    writers = [drafted for piece, drafted in pieces for _ in piece]
    finished = [writers[len(text[: at + 1].encode()) - 1] for at in range(len(text))]
    told = [(character, drafted) for run, drafted in shown for character in run.decode()]
    assert told == list(zip(text, finished, strict=True))[: len(told)]
    assert len(told) == len(text) or any(stop in text.encode() for stop in stops)


@given(text=st.binary(max_size=12), marks=st.lists(st.booleans(), min_size=12, max_size=12))
def test_bytes_that_are_no_text_come_out_all_the_same(text: bytes, marks: list[bool]):
    pieces = [(bytes((byte,)), drafted) for byte, drafted in zip(text, marks, strict=False)]
    assert b"".join(run for run, _ in show(TextStream(), pieces)) == text


@given(pieces=PIECES, cut=st.integers(1, 3))
def test_what_is_shown_never_ends_inside_a_character(pieces: list[tuple[bytes, bool]], cut: int):
    stream = TextStream()
    shown = b""
    for text, drafted in pieces:
        for i in range(0, len(text), cut):
            shown += b"".join(run.text for run in stream.push(text[i : i + cut], drafted=drafted))
            shown.decode()


@given(
    pieces=PIECES,
    stops=st.lists(st.text("abc猫", min_size=1, max_size=3).map(str.encode), min_size=1, max_size=3),
    cut=st.integers(1, 3),
)
def test_text_ends_before_the_first_stop_string(pieces: list[tuple[bytes, bool]], stops: list[bytes], cut: int):
    pieces = [(text[i : i + cut], mark) for text, mark in pieces for i in range(0, len(text), cut)]
    stream = TextStream(stops)
    shown, whole, expected = b"", b"", None
    for text, drafted in pieces:
        whole += text
        shown += b"".join(run.text for run in stream.push(text, drafted=drafted))
        found = [whole.find(stop) for stop in stops if stop in whole]
        if found:
            # The stop string that is complete first, token by token; of those in one token, the leftmost.
            expected = whole[: min(found)]
            break
        assert not any(shown.endswith(stop[:n]) and whole == shown for stop in stops for n in range(1, len(stop)))
    shown += b"".join(run.text for run in stream.flush())
    assert stream.stopped == (expected is not None)
    if expected is not None and stream.stop is not None:
        assert whole[len(expected) :].startswith(stream.stop)
    assert shown == (whole if expected is None else expected)
