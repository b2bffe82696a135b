"""The drafter's tree: growing, following the committed text, and what a verdict leaves of it."""

from __future__ import annotations

import pytest

from speculation.drafts.drafter_tree import DrafterTree, TreeNode, common_prefix


def grown() -> tuple[DrafterTree, dict[str, TreeNode]]:
    """Offset 10: "ab" (0.5) with "cd" (0.8) and "ce" (0.1) after it, and beside it "x" (0.4)."""
    tree = DrafterTree(10)
    ab = tree.add_token(tree.root, 1, b"ab", 0.5, choice=0)
    x = tree.add_token(tree.root, 2, b"x", 0.4, choice=1)
    cd = tree.add_token(ab, 3, b"cd", 0.8, choice=0)
    ce = tree.add_token(ab, 4, b"ce", 0.1, choice=2)
    return tree, {"ab": ab, "x": x, "cd": cd, "ce": ce}


def test_nodes_know_their_place():
    tree, nodes = grown()
    assert len(tree) == 4 and tree.root.end == 10 and tree.root.shipped
    assert [nodes[name].end for name in nodes] == [12, 11, 14, 14]
    assert [nodes[name].alternative for name in nodes] == [0, 1, 0, 2]
    assert nodes["ce"].path() == [nodes["ab"], nodes["ce"]] and tree.root.path() == []
    assert nodes["cd"].chance == pytest.approx(0.4) and tree.root.chance == 1.0
    assert tree.first_leaf() is nodes["cd"] and tree.leaves() == [nodes["x"], nodes["cd"], nodes["ce"]]
    assert all(tree.get(node.number) is node for node in nodes.values()) and tree.get(-1) is None
    fresh = TreeNode(None, 7, b"", 0)
    assert (fresh.confidence, fresh.alternative, fresh.rest_sent, fresh.shipped) == (1.0, 0, False, False)
    assert (fresh.ends, fresh.closed, fresh.asked) == (False, False, False)


def test_the_likeliest_leaves_that_may_grow():
    tree, nodes = grown()
    assert tree.best_leaves(9, lookahead=9, threshold=0.0) == [nodes["cd"], nodes["x"], nodes["ce"]], "0.4 twice"
    assert tree.best_leaves(1, lookahead=9, threshold=0.0) == [nodes["cd"]]
    assert tree.best_leaves(9, lookahead=2, threshold=0.0) == [nodes["x"]], "two tokens are as far as it may run"
    assert tree.best_leaves(9, lookahead=9, threshold=0.05) == [nodes["cd"], nodes["x"], nodes["ce"]]
    assert tree.best_leaves(9, lookahead=9, threshold=0.06) == [nodes["cd"], nodes["x"]]
    for state in ("asked", "closed", "ends"):
        setattr(nodes["cd"], state, True)
        assert not tree.may_grow(nodes["cd"], lookahead=9, threshold=0.0)
        setattr(nodes["cd"], state, False)
    assert tree.may_grow(nodes["cd"], lookahead=9, threshold=0.0)


@pytest.mark.parametrize(
    "text, name, agreed",
    [(b"", "", 0), (b"a", "", 1), (b"ab", "ab", 2), (b"abc", "ab", 3), (b"abcd", "cd", 4), (b"abceX", "ce", 4),
     (b"abX", "ab", 2), (b"xab", "x", 1), (b"q", "", 0)],
)  # fmt: skip
def test_the_branch_that_agrees_longest_is_followed(text: bytes, name: str, agreed: int):
    tree, nodes = grown()
    assert tree.follow(text) == (nodes.get(name, tree.root), agreed)


def test_of_branches_that_agree_as_long_the_first_met_stays():
    tree = DrafterTree(0)
    first = tree.add_token(tree.root, 1, b"ab", 0.5, choice=0)
    tree.add_token(tree.root, 2, b"ab", 0.4, choice=1)
    assert tree.follow(b"ab") == (first, 2)


def test_a_verdict_selects_a_branch_and_its_first_choice_is_the_first():
    tree, nodes = grown()
    tree.select(nodes["ab"], b"ce")
    assert tree.root is nodes["ab"] and nodes["ab"].parent is None and nodes["ab"].children == [nodes["ce"]]
    assert len(tree) == 1 and tree.get(nodes["x"].number) is None and nodes["ce"].alternative == 0
    assert nodes["ab"].shipped and nodes["ce"].path() == [nodes["ce"]] and nodes["ab"].alternative == 0
    tree, nodes = grown()
    deeper = tree.add_token(nodes["ce"], 5, b"f", 0.5, choice=1)
    tree.select(nodes["ab"], b"")
    assert [nodes[name].alternative for name in ("cd", "ce")] == [0, 2] and deeper.alternative == 3
    tree.select(nodes["ce"], b"")
    assert deeper.alternative == 0, "the first of what is left"
    tree, nodes = grown()
    tree.select(nodes["x"], b"")
    assert nodes["x"].alternative == 0 and len(tree) == 0 and tree.first_leaf() is nodes["x"]


def test_a_verdict_within_a_token_keeps_what_begins_with_it():
    tree, nodes = grown()
    tree.select(nodes["ab"], b"c")
    assert nodes["ab"].children == [nodes["cd"], nodes["ce"]]


def test_a_restart_leaves_nothing():
    tree, nodes = grown()
    tree.restart(17)
    assert (len(tree), tree.root.end, tree.root.shipped) == (0, 17, True)
    assert tree.get(nodes["ab"].number) is None and tree.get(tree.root.number) is tree.root


def test_what_two_sequences_begin_with():
    assert [common_prefix(b"abc", other) for other in (b"", b"x", b"axc", b"abx", b"abc", b"abcd")] == [
        0,
        0,
        1,
        2,
        3,
        3,
    ]
    assert common_prefix((1, 2), (1, 3)) == 1 and common_prefix((), (1,)) == 0
