"""Where a span continues from is remembered, and that changes nothing but how long it takes to find."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speculation.drafts import draft_places
from speculation.drafts.draft_places import DraftPlaces
from speculation.drafts.draft_pool import DraftPool
from speculation.drafts.span_fate import SpanFate
from speculation.protocol.messages import Span
from speculation.source import Source, SourceKind
from speculation.text import digest
from speculation.text.digest import EMPTY_DIGEST, extend_digest

SOURCES = [Source(SourceKind.DRAFTER) for _ in range(2)]
TEXTS = st.text("ab", min_size=1, max_size=4).map(str.encode)
#: A text that is committed, or a span behind another text.
EVENTS = st.one_of(TEXTS, st.tuples(st.text("ab", max_size=6).map(str.encode), TEXTS, st.sampled_from(SOURCES)))


def after(text: bytes, span: bytes, **more: Any) -> Span:
    return Span(len(text), extend_digest(EMPTY_DIGEST, text), span, **more)


@given(st.lists(EVENTS, max_size=24))
def test_a_pool_that_remembers_nothing_holds_the_same(events: list[bytes | tuple[bytes, bytes, Source]]):
    remembering, other = DraftPool(), DraftPool()
    with pytest.MonkeyPatch.context() as patch:
        find = DraftPlaces.find

        def forgetting(places: DraftPlaces, *what: Any) -> Any:
            places.keep(set())
            return find(places, *what)

        for event in events:
            if isinstance(event, bytes):
                remembering.advance(event)
                other.advance(event)
                continue
            ahead, text, source = event
            span = after(remembering.committed.since(0) + ahead, text, source=source)
            fate = remembering.add_span(span)
            patch.setattr(DraftPlaces, "find", forgetting)
            assert other.add_span(span) is fate
            patch.undo()
            assert list(remembering.branches(limit=99)) == list(other.branches(limit=99))
            assert remembering.size == other.size


def test_a_branch_is_continued_without_a_look_at_the_others(monkeypatch: pytest.MonkeyPatch):
    """Through runs that are split, and text that is committed meanwhile."""
    pool = DraftPool()
    pool.add_span(after(b"", b"the heron"))
    pool.add_span(after(b"", b"the hero waits"))
    pool.add_span(after(b"", b"no"))
    monkeypatch.delattr(draft_places, "_looked_for")
    assert pool.add_span(after(b"the heron", b" flies")) is SpanFate.USED
    assert pool.add_span(after(b"the heron flies", b" away")) is SpanFate.USED
    pool.advance(b"the ")
    assert pool.add_span(after(b"the hero waits", b" here")) is SpanFate.USED
    texts = {path.text for path in pool.branches(limit=99)}
    assert texts == {b"heron flies away", b"hero waits here"}
    assert pool.size == len(b"hero") + len(b"n flies away") + len(b" waits here")


def test_another_drafters_text_of_the_same_digest_diverts_nobody(monkeypatch: pytest.MonkeyPatch):
    """It wastes its own drafts."""
    monkeypatch.setattr(digest, "MODULUS", 97)
    honest, hostile = SOURCES
    text = b"the heron"
    others = (bytes([*letters, *b" heron"]) for letters in itertools.permutations(b"abcdefghijklmnopqrstuvwxyz", 3))
    colliding = next(
        other
        for other in others
        if other != text and extend_digest(EMPTY_DIGEST, other) == extend_digest(EMPTY_DIGEST, text)
    )
    pool = DraftPool()
    pool.add_span(after(b"", text, source=honest))
    pool.add_span(after(b"", colliding, source=hostile))
    assert pool.add_span(after(text, b" flies", source=honest)) is SpanFate.USED
    assert {path.text for path in pool.branches(limit=99)} == {b"the heron flies", colliding}


def test_what_is_gone_is_not_continued():
    pool = DraftPool()
    pool.add_span(after(b"", b"the heron"))
    pool.add_span(after(b"", b"a fish"))
    pool.advance(b"the")
    assert pool.add_span(after(b"a fish", b" swims")) is SpanFate.STALE
    pool.clear()
    assert pool.add_span(after(b"the heron", b" waits")) is SpanFate.STALE
    assert pool.size == 0
