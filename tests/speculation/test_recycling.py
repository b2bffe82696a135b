"""Drafting from what the target nearly said: what is kept, how likely it is taken to be, and the tree that it makes."""

from __future__ import annotations

import pytest

from speculation.drafts.candidate_node import CandidateNode
from speculation.drafts.candidates import ROOT
from speculation.drafts.recycled_tokens import CONTEXT, KEPT, RecycledTokens
from speculation.drafts.recycling import LEAST_DRAWN, LEAST_GREEDY, Recycling
from speculation.source import DRAFTER, RECYCLED
from tests.support.recycled import known

# ---- what is kept -------------------------------------------------------------------------------------------------


def test_the_longest_context_that_is_known_counts():
    tokens = known((b"abc", b"123"), (b"xbc", b"45"), (b"yyc", b"6"))
    assert tokens.after(tuple(b"abc"))[0] == tuple(b"123")
    assert tokens.after(tuple(b"zbc"))[0] == tuple(b"45"), "two tokens: whoever was heard last"
    assert tokens.after(tuple(b"zzc"))[0] == tuple(b"6")
    assert tokens.after(tuple(b"zzz")) == ((), ()) and tokens.after(()) == ((), ())
    long, middle, short = (tokens.after(tuple(context))[1] for context in (b"abc", b"zbc", b"zzc"))
    assert long[0] > middle[0] > short[0], "the more of the context is known, the likelier"


def test_of_a_row_the_first_are_kept_and_of_a_context_the_last_row():
    tokens = known((b"a", bytes(range(65, 65 + 2 * KEPT))), (b"a", bytes(range(97, 97 + 2 * KEPT))))
    best, rates = tokens.after((ord("a"),))
    assert best == tuple(range(97, 97 + KEPT)) and len(rates) == KEPT
    assert list(rates) == sorted(rates, reverse=True)


def test_contexts_that_were_not_heard_of_for_long_are_forgotten():
    tokens = RecycledTokens(contexts=3)
    for context in (b"a", b"b", b"c", b"a", b"d"):
        tokens.hear(tuple(context), [1])
    assert len(tokens) == 3
    assert [bool(tokens.after(tuple(context))[0]) for context in (b"a", b"b", b"c", b"d")] == [True, False, True, True]


def test_how_often_each_rank_comes_true_is_learned():
    tokens = known((b"abc", b"12"))
    before = tokens.after(tuple(b"abc"))[1]
    for _ in range(1000):
        tokens.settle(tuple(b"abc"), ord("2"))
    after = tokens.after(tuple(b"abc"))[1]
    assert after[0] < 0.1 * before[0], "the first was never right"
    assert after[1] == after[0], "a lower rank is never taken to be likelier than a higher one"
    for _ in range(9000):
        tokens.settle(tuple(b"abc"), ord("1"))
    assert tokens.after(tuple(b"abc"))[1][0] > 0.9, "what was long ago counts less"
    assert tokens.after(tuple(b"zbc"))[1] == known((b"zbc", b"1")).after(tuple(b"qbc"))[1], "contexts of two: nothing"


def test_a_miss_counts_and_what_is_not_known_does_not():
    tokens = known((b"c", b"12"))
    [first, *_] = tokens.after((ord("c"),))[1]
    tokens.settle((ord("d"),), ord("1"))
    assert tokens.after((ord("c"),))[1][0] == first
    tokens.settle((ord("c"),), ord("9"))
    assert tokens.after((ord("c"),))[1][0] < first


# ---- the tree -----------------------------------------------------------------------------------------------------


def test_a_tree_grows_best_first_behind_each_of_its_own():
    recycling = Recycling(known((b"b", b"cd"), (b"bc", b"e"), (b"bce", b"f")), width=9, greedy=True)
    recycling.begin(b"xxb")
    root = CandidateNode(None, ROOT, 1.0)
    grown = recycling.grow(root, 9)
    assert [node.token for node in grown] == list(b"cedf") or [node.token for node in grown] == list(b"cefd")
    assert [node.chance for node in grown] == sorted((node.chance for node in grown), reverse=True)
    assert all(node.chance <= node.parent.chance for node in grown)
    assert root.children[ord("c")].children[ord("e")].children[ord("f")] is grown[-1] or grown[-2]
    assert {node.source for node in grown} == {RECYCLED}
    recycling.begin(b"xxb")
    assert [node.token for node in recycling.grow(CandidateNode(None, ROOT, 1.0), 2)] == list(b"ce")


def test_what_is_there_already_is_grown_behind_and_not_repeated():
    recycling = Recycling(known((b"b", b"cd"), (b"c", b"e")), width=9, greedy=True)
    recycling.begin(b"b")
    root = CandidateNode(None, ROOT, 1.0)
    there = root.add(ord("c"), 0.9, DRAFTER)
    grown = recycling.grow(root, 9)
    assert [(node.parent, node.token) for node in grown] == [(there, ord("e")), (root, ord("d"))]


@pytest.mark.parametrize(("greedy", "least"), [(True, LEAST_GREEDY), (False, LEAST_DRAWN)])
def test_what_is_too_unlikely_is_no_candidate(greedy: bool, least: float):
    letters = bytes(range(97, 97 + KEPT))
    tokens = known(*[(bytes([letter]), letters) for letter in letters])
    recycling = Recycling(tokens, width=500, greedy=greedy)
    recycling.begin(b"a")
    chances = [node.chance for node in recycling.grow(CandidateNode(None, ROOT, 1.0), 500)]
    assert len(chances) < 500 and min(chances) >= least
    fewer = Recycling(tokens, width=500, greedy=False)
    fewer.begin(b"a")
    assert greedy == (len(chances) > len(fewer.grow(CandidateNode(None, ROOT, 1.0), 500)))


def test_contexts_are_of_three_tokens_at_most():
    assert CONTEXT == 3
    tokens = known((b"abc", b"1"))
    assert len(tokens) == 3
    assert all(tokens.after(tuple(part))[0] for part in (b"abc", b"bc", b"c"))
