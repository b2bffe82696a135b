"""The candidates of a step under the rejection rules: drawn tokens first, text beside and behind them, one by one."""

from __future__ import annotations

import pytest

from speculation.drafts.candidates import ROOT, CandidateBuilder, CandidateTree
from speculation.drafts.draft_pool import DraftPool
from speculation.drafts.drawn_candidates import DrawnCandidates
from speculation.protocol.messages import Span
from speculation.protocol.proposal import Proposal
from speculation.source import DRAFTER, LOOKUP, Source
from speculation.text.digest import EMPTY_DIGEST, extend_digest
from tests.support.text_models import TARGET_VOCAB, longest_words

A, B, C = (ord(letter) for letter in "abc")
[END] = TARGET_VOCAB.end_ids
#: Three times in four "a".
DRAWN = Proposal(A, (A, B), (3, 1))


def put(pool: DraftPool, before: bytes, text: bytes, *proposals: Proposal, source: Source = DRAFTER, **kwargs) -> None:
    pieces = [TARGET_VOCAB.bytes_of(proposal.token) for proposal in proposals]
    whole = b"".join(pieces) + text
    span = Span(len(before), extend_digest(EMPTY_DIGEST, before), whole, proposals=proposals, source=source, **kwargs)
    pool.add_span(span, pieces)


def build(
    pool: DraftPool, *, width: int = 8, threshold: float = 0.0, free: int = 0, may_end: bool = True
) -> tuple[CandidateTree, tuple[Proposal | None, ...]]:
    builder = CandidateBuilder(TARGET_VOCAB, longest_words(TARGET_VOCAB), may_end=may_end, free=free)
    return DrawnCandidates(builder, pool, [], width=width, threshold=threshold, trust={}).build()


def test_a_drawn_token_comes_with_its_distribution_and_text_behind_it():
    pool = DraftPool()
    put(pool, b"", b"cc", DRAWN)
    tree, proposals = build(pool)
    assert tree == CandidateTree.chain([A, C, C]) and proposals == (DRAWN, None, None)


def test_drawn_tokens_follow_one_another():
    pool = DraftPool()
    other = Proposal(B, (B,), (1,))
    put(pool, b"", b"", DRAWN, other)
    tree, proposals = build(pool)
    assert tree == CandidateTree.chain([A, B]) and proposals == (DRAWN, other)


def test_text_beside_a_drawn_token_is_an_alternative():
    pool = DraftPool()
    put(pool, b"", b"", DRAWN)
    put(pool, b"", b"cb", alternative=1, confidence=0.5)
    put(pool, b"", b"bb", source=LOOKUP, confidence=0.9)
    tree, proposals = build(pool)
    assert proposals == (DRAWN, *[None] * 4) and tree.first_choices == (0,)
    assert tree.tokens[0] == A and tree.parents[0] == ROOT
    paths = {TARGET_VOCAB.text([tree.tokens[n] for n in tree.path(node)]) for node in range(len(tree))}
    assert paths == {b"a", b"c", b"cb", b"b", b"bb"}


@pytest.mark.parametrize("threshold, count", [(0.75, 1), (0.751, 0), (0.5625, 3), (0.5626, 1)])
def test_a_drawn_token_is_as_likely_as_the_likeliest_of_its_place(threshold: float, count: int):
    """Whichever was drawn; after it the chances multiply."""
    pool = DraftPool()
    put(pool, b"", b"", DRAWN, Proposal(B, (A, B), (3, 1)), Proposal(C, (C,), (1,)))
    assert len(build(pool, threshold=threshold)[0]) == count


@pytest.mark.parametrize("width, free, count", [(8, 0, 0), (8, 2, 2), (1, 2, 1), (0, 0, 0)])
def test_width_and_free_candidates_bound_a_step(width: int, free: int, count: int):
    pool = DraftPool()
    put(pool, b"", b"ccc", DRAWN)
    tree, proposals = build(pool, width=width, free=free, threshold=0.9)
    assert len(tree) == len(proposals) == count


def test_text_alone_is_verified_by_agreement():
    pool = DraftPool()
    put(pool, b"", b"cb", confidence=0.5)
    tree, proposals = build(pool)
    assert tree == CandidateTree.chain([C, B]) and proposals == (None, None)
    assert len(build(pool, threshold=0.5)[0]) == 2 and len(build(pool, threshold=0.51)[0]) == 0
    put(pool, b"cb", b"", ends=True)
    assert build(pool)[0].tokens == (C, B, END) and build(pool, may_end=False)[0].tokens == (C, B)


def test_text_leads_to_the_place_where_the_next_token_was_drawn():
    pool = DraftPool()
    put(pool, b"", b"c", confidence=0.5)
    put(pool, b"c", b"", DRAWN)
    tree, proposals = build(pool)
    assert tree == CandidateTree.chain([C, A]) and proposals == (None, DRAWN)
    assert len(build(pool, threshold=0.375)[0]) == 2 and len(build(pool, threshold=0.376)[0]) == 1


def test_text_that_others_looked_up_is_no_first_choice_of_drafters():
    pool = DraftPool()
    put(pool, b"", b"c", source=LOOKUP)
    put(pool, b"c", b"", DRAWN)
    tree, _ = build(pool)
    assert tree.tokens == (C, A) and tree.sources == (LOOKUP, DRAFTER) and 0 not in tree.first_choices


def test_an_empty_pool_gives_no_candidates():
    assert build(DraftPool()) == (CandidateTree(), ())
