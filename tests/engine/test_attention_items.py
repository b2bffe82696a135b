"""Every key of every row is in exactly one item of the attention kernel, whatever the trees and the order of work."""

from __future__ import annotations

import itertools
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.attention_items import (
    BLOCK,
    GROUP,
    GROUP_ITEM,
    ROOT,
    SPLIT,
    SPLIT_ITEM,
    TAIL_BLOCKS,
    TAIL_ITEM,
    ItemList,
    paths_of,
)

Tree = list[int]


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    size = draw(st.integers(1, 24))
    return [draw(st.integers(ROOT, row - 1)) for row in range(size)]


def chain_of(parents: Tree, row: int) -> list[int]:
    chain = [row]
    while parents[chain[0]] != ROOT:
        chain.insert(0, parents[chain[0]])
    return chain


@given(trees())
def test_paths_hold_every_row_once_each_below_its_ancestors(parents: Tree):
    paths = paths_of(parents)
    assert sorted(row for path in paths for row in path) == list(range(len(parents)))
    for path in paths:
        assert all(parents[below] == above for below, above in itertools.pairwise(path))


def test_paths_follow_the_deepest_rows_first():
    assert paths_of([ROOT, 0, 0, 1, 1, 2]) == [[5, 2, 0], [4, 1], [3]]
    assert paths_of([ROOT] * 3) == [[2], [1], [0]]
    assert paths_of([]) == []


@given(
    st.lists(st.tuples(trees(), st.integers(0, 1300)), max_size=5),
    st.sampled_from([1, 3, 8]),
    st.sampled_from([0, 6, 10**6]),
)
def test_items_reach_every_key_of_every_row_once(sequences: list[tuple[Tree, int]], height: int, grouped_from: int):
    items = ItemList(height=height, grouped_from=grouped_from)
    owner: list[tuple[int, int]] = []  # of each row: its sequence, its number there
    for number, (parents, base) in enumerate(sequences):
        positions = [base + len(chain_of(parents, row)) - 1 for row in range(len(parents))]
        items.add(slot=7 + number, base=base, parents=parents, positions=positions)
        owner += [(number, row) for row in range(len(parents))]
    found, grouped = items.build()
    assert sorted(items.by_path) == list(range(len(owner)))
    seen: dict[int, list[int]] = defaultdict(list)  # of each row: blocks
    for kind, part, start, count, slot, base, *rest in found.tolist():
        rows = items.by_path[start : start + count]
        assert 1 <= count <= height and rest == [0, 0]
        assert {owner[row][0] for row in rows} == {slot - 7} and base == sequences[slot - 7][1]
        committed = base // BLOCK
        if kind == TAIL_ITEM:
            parents = sequences[slot - 7][0]
            deepest = chain_of(parents, owner[rows[0]][1])
            assert part < TAIL_BLOCKS
            for row in rows:  # its keys are the first of those of the deepest
                chain = chain_of(parents, owner[row][1])
                assert chain == deepest[: len(chain)]
                if (committed + part) * BLOCK <= base + len(chain) - 1:
                    seen[row].append(committed + part)
        else:
            assert kind == SPLIT_ITEM or grouped
            size = (GROUP if kind == GROUP_ITEM else SPLIT) // BLOCK
            blocks = [block for block in range(part * size, (part + 1) * size) if block < committed]
            assert len(blocks) == size or kind == SPLIT_ITEM
            for row in rows:
                seen[row] += blocks
    for row, (number, of_sequence) in enumerate(owner):
        parents, base = sequences[number]
        position = base + len(chain_of(parents, of_sequence)) - 1
        assert sorted(seen[row]) == list(range(position // BLOCK + 1))


@pytest.mark.parametrize(("grouped_from", "kinds"), [(0, {GROUP_ITEM, SPLIT_ITEM, TAIL_ITEM}), (99, {0, TAIL_ITEM})])
def test_groups_are_items_where_splits_are_many(grouped_from: int, kinds: set[int]):
    items = ItemList(height=4, grouped_from=grouped_from)
    items.add(slot=0, base=GROUP + SPLIT + 3, parents=[ROOT], positions=[GROUP + SPLIT + 3])
    found, grouped = items.build()
    assert set(found[:, 0].tolist()) == kinds and grouped is (grouped_from == 0)
    parts = [item[1] for item in found.tolist() if item[0] == SPLIT_ITEM]
    assert parts == ([4] if grouped else [0, 1, 2, 3, 4])
