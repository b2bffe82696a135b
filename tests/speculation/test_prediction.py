"""A client's prediction as a draft: followed, left, and found again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from speculation.drafts.prediction import ANCHOR, Prediction

OLD = b"def add(a, b):\n    return a + b\n\n\ndef sub(a, b):\n    return a - b\n"


def test_it_is_followed_from_the_start():
    prediction = Prediction(OLD)
    assert prediction.ahead(7) == OLD[:7]
    prediction.advance(OLD[:10])
    assert prediction.ahead(7) == OLD[10:17]
    prediction.advance(OLD[10:])
    assert prediction.ahead(7) == b""


def test_it_is_found_again_behind_a_change():
    prediction = Prediction(OLD)
    new = OLD.replace(b"add", b"plus")
    at = new.index(b"plus") + 4
    prediction.advance(new[:at])
    assert prediction.ahead(9) == b""
    prediction.advance(new[at : at + ANCHOR])
    assert prediction.ahead(9) == OLD[OLD.index(b"(a, b)") + ANCHOR :][:9], "the nearest place, not the second function"


def test_without_a_prediction_nothing_is_ahead():
    prediction = Prediction(b"")
    for text in (b"", b"abc", b"x" * 50):
        prediction.advance(text)
        assert prediction.ahead(100) == b""


@given(st.binary(max_size=60), st.lists(st.binary(max_size=20), max_size=8), st.integers(0, 30))
def test_what_is_ahead_is_a_part_of_it_that_follows_the_texts_end(old: bytes, steps: list[bytes], limit: int):
    prediction, text = Prediction(old), b""
    for step in steps:
        prediction.advance(step)
        text += step
        ahead = prediction.ahead(limit)
        assert len(ahead) <= limit
        if ahead:
            assert text[-ANCHOR:] + ahead in old or (text + ahead) == old[: len(text + ahead)]


def test_it_is_found_again_at_its_very_beginning_and_first_behind_where_it_was_left():
    head, tail = b"0123456789ab", b"next"
    prediction = Prediction(head + tail)
    prediction.advance(b"x")
    assert prediction.ahead(9) == b""
    prediction.advance(head[:-1])
    assert prediction.ahead(9) == b"", "eleven bytes are too few"
    prediction.advance(head[-1:])
    assert prediction.ahead(9) == tail
    twice = Prediction(head + b"first" + b"." * 20 + head + b"second")
    twice.advance(head + b"first" + b"." * 20)
    twice.advance(b"other" + head)
    assert twice.ahead(6) == b"second"
    twice.advance(b"other" + head)
    assert twice.ahead(6) == b"second"


def test_the_place_is_searched_from_an_anchor_before_where_it_was_left():
    head = b"0123456789ab"
    prediction = Prediction(head + b"XY" + head + b"Z")
    prediction.advance(head)  # left here, at 12
    prediction.advance(b"q" + head)
    assert prediction.ahead(2) == b"XY", "its last twelve bytes count as well"
