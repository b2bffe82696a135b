"""Candidates cut out of the pool: the likeliest, as a tree whose paths spell what drafters sent."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speculation.drafts.candidates import ROOT, CandidateBuilder, CandidateTree
from speculation.drafts.draft_pool import DraftPool
from speculation.protocol.messages import Span
from speculation.source import DRAFTER, LOOKUP, Source, SourceKind
from speculation.text.digest import EMPTY_DIGEST, extend_digest
from tests.support.text_models import TARGET_VOCAB, longest_words

BUILDER = CandidateBuilder(TARGET_VOCAB, longest_words(TARGET_VOCAB), may_end=True)


def pool(*spans: tuple[bytes, bytes, float], source: Source = DRAFTER) -> DraftPool:
    """Spans as (what they follow, text, confidence); the first is the first choice, the others alternatives."""
    trie = DraftPool()
    for number, (before, text, confidence) in enumerate(spans):
        digest = extend_digest(EMPTY_DIGEST, before)
        trie.add_span(Span(len(before), digest, text, alternative=number, confidence=confidence, source=source))
    return trie


def spelled(tree: CandidateTree) -> list[bytes]:
    return [TARGET_VOCAB.text([tree.tokens[n] for n in tree.path(node)]) for node in range(len(tree))]


def test_the_likeliest_are_taken_across_branches():
    drafts = pool((b"", b"the ", 0.6), (b"the ", b"dog", 0.9), (b"", b"a", 0.35), (b"a", b" cat", 0.1))
    texts = spelled(BUILDER.build(drafts, [], width=16, threshold=0.2))
    assert b"the dog" in texts and b"a" in texts, "an alternative is verified beside the first choice"
    assert not any(text.startswith(b"a ") for text in texts), "but not what is less likely than the threshold"
    first_alone = spelled(BUILDER.build(drafts, [], width=1, threshold=0.0))
    assert len(first_alone) == 1 and b"the dog".startswith(first_alone[0])


@given(
    spans=st.lists(st.tuples(st.text("ab c", max_size=6).map(str.encode), st.floats(0, 1)), max_size=6),
    width=st.integers(0, 12),
    threshold=st.sampled_from([0.0, 0.1, 0.5]),
    trust=st.sampled_from([0.1, 1.0, 1.2]),
    free=st.integers(0, 4),
)
def test_every_pool_gives_a_tree(
    spans: list[tuple[bytes, float]], width: int, threshold: float, trust: float, free: int
):
    drafts = pool(*((b"", text, confidence) for text, confidence in spans))
    builder = CandidateBuilder(TARGET_VOCAB, longest_words(TARGET_VOCAB), may_end=True, free=free)
    tree = builder.build(drafts, [], width=width, threshold=threshold, trust={DRAFTER: trust})
    likely = BUILDER.build(drafts, [], width=width, threshold=threshold, trust={DRAFTER: trust})
    everything = BUILDER.build(drafts, [], width=width, threshold=0.0, trust={DRAFTER: trust})
    assert len(tree) == max(len(likely), min(free, len(everything)))
    assert len(tree) <= width
    assert all(ROOT <= parent < node for node, parent in enumerate(tree.parents)), "parents come first"
    assert len(set(zip(tree.parents, tree.tokens, strict=True))) == len(tree), "no candidate twice"
    sent = [text for text, _ in spans]
    assert all(any(text.startswith(path) for text in sent) for path in spelled(tree))
    for node, number in enumerate(tree.first_choices):
        assert tree.path(number) == tree.first_choices[: node + 1], "the first choices are one path from the root"


def test_a_chain_is_a_tree_without_branches():
    tree = CandidateTree.chain([5, 6, 7])
    assert tree.is_chain and tree.parents == (ROOT, 0, 1) and tree.first_choices == (0, 1, 2)
    assert tree.child(ROOT, 5) == 0 and tree.child(0, 7) is None and tree.path(2) == (0, 1, 2)
    assert not CandidateTree((5, 6), (ROOT, ROOT)).is_chain


def test_how_a_tree_goes_on_where_it_was_refused():
    """0 -> 1 -> 4 is the likeliest branch, 2 -> 3 another; a candidate's first child comes before its others."""
    tree = CandidateTree((5, 6, 7, 8, 9, 10), (ROOT, 0, ROOT, 2, 1, 1), sources=(DRAFTER,) * 6)
    beyond = partial(tree.beyond, without=SourceKind.RECYCLED)
    assert beyond(ROOT) == (0, 1, 4) and beyond(0) == (1, 4) and beyond(2) == (3,)
    assert beyond(4) == () and CandidateTree().beyond(ROOT, without=SourceKind.RECYCLED) == ()
    assert tree.depth == 3 and CandidateTree().depth == 0 and CandidateTree.chain([5, 6]).depth == 2


def test_what_the_target_looked_up_is_no_first_choice_of_a_drafter():
    looked_up = pool((b"", b"the dog", 0.9), source=LOOKUP)
    tree = BUILDER.build(looked_up, [], width=8, threshold=0.0)
    assert len(tree) and tree.first_choices == () and set(tree.sources) == {LOOKUP}
    assert looked_up.guesses(DRAFTER) == {}


@pytest.mark.parametrize("trust", [0.1, 1.0])
def test_a_drafter_that_is_not_believed_is_not_verified(trust: float):
    tree = BUILDER.build(pool((b"", b"the dog", 0.9)), [], width=8, threshold=0.2, trust={DRAFTER: trust})
    assert bool(len(tree)) is (trust == 1.0)


def test_a_shared_beginning_is_as_likely_as_the_likelier_of_both():
    drafts = pool((b"", b"is", 0.6), (b"", b"in", 0.3))
    chances = {path.text: path.chances for path in drafts.branches(limit=99)}
    assert chances[b"is"] == pytest.approx((0.6, 0.6)) and chances[b"in"] == pytest.approx((0.6, 0.3))


def test_a_step_looks_at_eight_branches():
    letters = [bytes((97 + number,)) for number in range(10)]
    drafts = pool(*((b"", letter, 0.5) for letter in letters))
    assert spelled(BUILDER.build(drafts, [], width=16, threshold=0.0)) == letters[:8]


def test_only_what_is_likelier_than_what_was_found_is_looked_at():
    drafts = pool((b"", b"xy", 0.5), (b"", b"z", 0.5), (b"", b"w", 0.6))
    assert spelled(BUILDER.build(drafts, [], width=2, threshold=0.0)) == [b"w", b"x"]
    assert spelled(BUILDER.build(drafts, [], width=3, threshold=0.0)) == [b"w", b"x", b"xy"]
    assert spelled(BUILDER.build(drafts, [], width=9, threshold=0.55)) == [b"w"]
    free = CandidateBuilder(TARGET_VOCAB, longest_words(TARGET_VOCAB), may_end=True, free=3)
    assert spelled(free.build(drafts, [], width=9, threshold=0.9)) == [b"w", b"x", b"xy"]


def test_a_draft_of_so_many_tokens_has_sixteen_bytes_for_each():
    single = CandidateBuilder(TARGET_VOCAB, lambda text: list(text.encode()), may_end=True)
    [path] = list(pool((b"", b"x" * 50, 1.0)).branches(limit=16))
    assert len(path.text) == 16
    assert len(single.build(pool((b"", b"x" * 50, 1.0)), [], width=40, threshold=0.0)) == 40


def test_the_end_stands_behind_the_whole_branch_only():
    drafts = pool((b"", b"xy", 0.5))
    drafts.add_span(Span(2, extend_digest(EMPTY_DIGEST, b"xy"), b"", ends=True))
    [end] = TARGET_VOCAB.end_ids
    tree = BUILDER.build(drafts, [], width=3, threshold=0.0)
    assert tree.tokens == (ord("x"), ord("y"), end) and tree.parents == (ROOT, 0, 1) and tree.first_choices == (0, 1, 2)
    assert BUILDER.build(drafts, [], width=2, threshold=0.0).tokens == (ord("x"), ord("y"))
    alone = DraftPool()
    alone.add_span(Span(0, EMPTY_DIGEST, b"", ends=True))
    assert BUILDER.build(alone, [], width=1, threshold=0.9).tokens == (end,)
