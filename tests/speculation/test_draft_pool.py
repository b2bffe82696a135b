"""The pool of spans: a trie of bytes after the committed text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speculation.drafts import draft_places, draft_pool
from speculation.drafts.draft_path import DraftPath
from speculation.drafts.draft_pool import DraftPool
from speculation.drafts.span_fate import SpanFate
from speculation.protocol.messages import Span, SpeculationPlan
from speculation.protocol.proposal import Proposal
from speculation.source import DRAFTER, LOOKUP, Source, SourceKind
from speculation.text.digest import EMPTY_DIGEST, DigestedText, extend_digest

TEXTS = st.text("ab猫", max_size=12).map(str.encode)


def digest(text: bytes) -> int:
    return extend_digest(EMPTY_DIGEST, text)


def best(trie: DraftPool, limit: int) -> DraftPath:
    return next(trie.branches(limit=limit))


def after(text: bytes, span: bytes, **kwargs) -> Span:
    return Span(len(text), digest(text), span, **kwargs)


@given(TEXTS, TEXTS)
def test_digest_of_a_text_does_not_depend_on_how_it_came(a: bytes, b: bytes):
    text = DigestedText(a)
    text.append(b)
    assert text.digest == digest(a + b) == text.digest_at(len(a + b))
    assert text.digest_at(len(a)) == digest(a)
    assert text.since(len(a)) == b


@given(TEXTS, TEXTS)
def test_digests_tell_texts_apart(a: bytes, b: bytes):
    assert (digest(a) == digest(b)) == (a == b)


def test_leading_nul_bytes_count():
    assert len({digest(b"\0" * n) for n in range(20)}) == 20


@given(committed=TEXTS, late=st.integers(0, 12), draft=TEXTS, commit=st.integers(0, 12))
def test_late_spans_are_used_from_the_middle(committed: bytes, late: int, draft: bytes, commit: int):
    trie = DraftPool()
    trie.advance(committed)
    base = committed[: max(0, len(committed) - late)]
    trie.add_span(after(base, committed[len(base) :] + draft))
    assert best(trie, 99).text == draft
    trie.advance(draft[:commit])
    assert best(trie, 99).text == draft[commit:]
    assert trie.size == len(draft[commit:])


@given(st.lists(TEXTS, max_size=6), TEXTS)
def test_holds_exactly_the_prefixes_of_its_spans(spans: list[bytes], commit: bytes):
    trie = DraftPool()
    for span in spans:
        trie.add_span(after(b"", span))
    prefixes = {span[:n] for span in spans for n in range(1, len(span) + 1)}
    assert trie.size == len(prefixes)
    trie.advance(commit)
    left = {p[len(commit) :] for p in prefixes if p.startswith(commit) and len(p) > len(commit)}
    assert trie.size == len(left)
    text = best(trie, 99).text
    assert text in left or (text == b"" and not left)


def test_first_choices_come_before_alternatives_and_early_before_late():
    trie = DraftPool()
    trie.add_span(after(b"", b"second choice", alternative=1))
    trie.add_span(after(b"", b"first"))
    trie.add_span(after(b"", b"later"))
    assert best(trie, 99).text == b"first"
    trie.advance(b"s")
    assert best(trie, 99).text == b"econd choice", "a verdict selects a branch"


def test_spans_ahead_hang_on_the_branch_they_continue():
    trie = DraftPool()
    assert trie.add_span(after(b"ab", b"cd")) is SpanFate.STALE
    assert trie.add_span(after(b"", b"ab")) is SpanFate.USED
    assert trie.add_span(after(b"ab", b"cd")) is SpanFate.USED
    assert trie.add_span(after(b"ab", b"cd")) is SpanFate.KNOWN
    assert trie.add_span(Span(2, digest(b"xy"), b"cd")) is SpanFate.STALE
    assert best(trie, 3).text == b"abc"


def test_spans_of_another_past_are_stale():
    trie = DraftPool()
    trie.advance(b"abc")
    assert trie.add_span(Span(3, digest(b"abd"), b"x")) is SpanFate.STALE
    assert trie.add_span(after(b"ab", b"dx")) is SpanFate.STALE
    assert trie.add_span(after(b"abc", b"x")) is SpanFate.USED
    trie.advance(b"y")
    assert trie.size == 0


def test_the_end_is_a_branch_of_its_own():
    trie = DraftPool()
    trie.add_span(after(b"", b"ab", ends=True))
    assert best(trie, 99) == best(trie, 2)
    assert best(trie, 99).ends
    assert not best(trie, 1).ends
    trie.add_span(after(b"ab", b"c"))
    assert best(trie, 99).ends, "the earlier guess stands before the later one"
    trie.advance(b"ab")
    assert best(trie, 99).ends
    trie.advance(b"")
    assert best(trie, 99).text == b"c", "the target went on without adding bytes: it was not the end"


def test_a_digest_is_the_polynomial_that_every_peer_computes():
    """Known answers: the protocol's."""
    modulus, multiplier = 2**61 - 1, 0x1D2B7C4E90A36F15 % (2**61 - 1)
    assert EMPTY_DIGEST == 1 and digest(b"") == 1
    assert digest(b"a") == multiplier + 98 and digest(b"a\0") == ((multiplier + 98) * multiplier + 1) % modulus
    text = DigestedText(b"a\0")
    assert [text.digest_at(n) for n in range(3)] == [1, digest(b"a"), digest(b"a\0")]
    for offset in (-1, 3):
        with pytest.raises(IndexError):
            text.digest_at(offset)


def test_of_one_place_a_source_has_said_enough_at_some_time():
    pool, other = DraftPool(), Source(SourceKind.DRAFTER)
    most = DraftPool.MAX_CHOICES
    assert most > 1 + SpeculationPlan.MAX_ALTERNATIVES
    root = pool.committed.digest
    fates = [pool.add_span(Span(0, root, bytes([65 + number, 33]))) for number in range(most + 2)]
    assert fates == [SpanFate.USED] * most + [SpanFate.FULL] * 2
    assert pool.add_span(Span(0, root, b"A?")) is SpanFate.USED, "another place"
    assert pool.add_span(Span(0, root, bytes([65 + most, 33]), source=other)) is SpanFate.USED, "another's word"
    pool.advance(b"A")
    assert pool.add_span(Span(1, pool.committed.digest, b"B")) is SpanFate.USED


def test_capacity_bounds_what_drafters_can_store():
    assert DraftPool().capacity == 4096
    trie = DraftPool(capacity=10)
    assert trie.add_span(after(b"", b"x" * 8)) is SpanFate.USED
    assert trie.add_span(after(b"", b"y" * 8)) is SpanFate.FULL
    assert trie.size == 10
    trie.advance(b"x" * 8)
    assert trie.size == 0
    assert trie.add_span(after(b"x" * 8, b"y" * 8)) is SpanFate.USED


def test_no_source_leaves_the_others_without_room():
    """Nor do many of them together hold without bound."""
    greedy, honest = Source(SourceKind.DRAFTER), Source(SourceKind.DRAFTER)
    pool = DraftPool(capacity=10)
    assert pool.add_span(after(b"", b"x" * 20, source=greedy)) is SpanFate.FULL
    assert pool.add_span(after(b"", b"y", source=greedy)) is SpanFate.FULL
    assert pool.add_span(after(b"", b"xyyyyyyyyyy", source=honest)) is SpanFate.USED, "the first byte is no room of his"
    assert pool.size == 20
    pool.advance(b"x")
    assert pool.size == 19
    assert pool.add_span(after(b"x", b"z", source=greedy)) is SpanFate.USED, "it holds 9 of its 10 bytes"
    assert pool.add_span(after(b"x", b"a", source=honest)) is SpanFate.FULL
    crowd = [Source(SourceKind.DRAFTER) for _ in range(DraftPool.SHARES)]
    fates = [pool.add_span(after(b"x", bytes([65 + number]) * 10, source=one)) for number, one in enumerate(crowd)]
    assert fates == [SpanFate.USED] * (DraftPool.SHARES - 2) + [SpanFate.FULL] * 2
    assert pool.size == DraftPool.SHARES * pool.capacity


def test_what_others_guess_makes_no_look_for_a_place_long(monkeypatch: pytest.MonkeyPatch):
    """Neither for a place that is found, nor for one that is gone."""
    looked_at = 0

    def counted(of_node: int, data: bytes) -> int:
        nonlocal looked_at
        looked_at += len(data)
        return extend_digest(of_node, data)

    drafts, other = DraftPool(), Source(SourceKind.DRAFTER)
    drafts.add_span(after(b"", b"the first words"))
    for number in range(DraftPool.SHARES - 1):
        source = Source(SourceKind.DRAFTER)
        for tail in range(16):
            drafts.add_span(after(b"", bytes([number, tail]) + b"z" * 254, source=source))
    assert drafts.size > 6 * drafts.capacity
    for room in (draft_pool, draft_places):
        monkeypatch.setattr(room, "extend_digest", counted)
    assert drafts.add_span(after(b"the first words", b" then")) is SpanFate.USED and looked_at < 40
    gone = Span(200, 1, b"x", source=other)
    assert drafts.add_span(gone) is SpanFate.STALE and looked_at < 40 + draft_places.LOOKED_AT
    assert drafts.add_span(after(b"the", b"n", source=other)) is SpanFate.USED, "of others, too"


def test_what_was_looked_up_is_no_draft_to_step_with():
    """A step that waits for drawn tokens goes on waiting, whatever the target itself has found."""
    proposal = Proposal(1, (1, 2), (3, 1))
    for source, ready in ((LOOKUP, False), (DRAFTER, True)):
        trie = DraftPool()
        trie.add_span(Span(0, EMPTY_DIGEST, b"a", proposals=(proposal,)), [b"a"])
        trie.add_span(after(b"a", b"bc", source=source))
        assert trie.has_drawn(1) and trie.has_drawn(2) is ready
