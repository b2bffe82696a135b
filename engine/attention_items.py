"""What the attention kernel has to do in a step: a list of items that need nothing of each other.

A row's keys are summed in blocks of ``BLOCK`` positions, blocks within splits of ``SPLIT``, splits within groups of
``GROUP`` (engine/tree_attention.py). Blocks that are committed as a whole are the same keys for all rows of a sequence,
so a *tile* of its rows reads them together: a split for each item, or, where a step has enough of them to fill the
device anyway, a whole group. The blocks from the first uncommitted position on differ between the branches of a tree;
there the rows of one *path* (a node and some of its ancestors in a row) share an item, as their keys are those of the
deepest of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: Positions whose keys are summed by themselves, and whose sums are merged before they meet others.
BLOCK, SPLIT, GROUP = 64, 128, 512
#: Blocks from the first uncommitted position on: a path has ``BLOCK`` new tokens at most.
TAIL_BLOCKS = 2
#: Kinds of items; what is left over of the list is of none.
NO_ITEM, SPLIT_ITEM, GROUP_ITEM, TAIL_ITEM = -1, 0, 1, 2
#: Of an item: kind, number of its split or group or of the block from the base on, first of its rows in the list of
#: rows by path, how many, line of the page table, committed positions; and two for alignment.
COLUMNS = 8
#: Parent of a token that follows the committed positions.
ROOT = -1

Items = NDArray[np.int64]
#: First row in the list of rows by path, number of rows, line of the page table, committed positions.
Tile = tuple[int, int, int, int]


def paths_of(parents: Sequence[int]) -> list[list[int]]:
    """Every row in exactly one list: a row, then its ancestors upwards as far as no list before has them."""
    taken = [False] * len(parents)
    paths = []
    for leaf in range(len(parents) - 1, -1, -1):
        path, row = [], leaf
        while row != ROOT and not taken[row]:
            taken[row] = True
            path.append(row)
            row = parents[row]
        if path:
            paths.append(path)
    return paths


class ItemList:
    """Items of the sequences of one step. ``height``: rows of an item at most.

    ``grouped_from``: so many split items of a step are better done group by group.
    """

    def __init__(self, *, height: int, grouped_from: int) -> None:
        self._height = height
        self._grouped_from = grouped_from
        self._tiles: list[Tile] = []
        #: Rows in the order in which items name them.
        self.by_path: list[int] = []
        self._tails: list[tuple[int, ...]] = []

    def add(self, *, slot: int, base: int, parents: Sequence[int], positions: Sequence[int]) -> None:
        """A sequence, whose rows follow those of the sequences before. ``positions``: of its rows."""
        first = len(self.by_path)
        for path in paths_of(parents):
            for at in range(0, len(path), self._height):
                piece = path[at : at + self._height]
                start = len(self.by_path)
                self.by_path += [first + row for row in piece]
                blocks = positions[piece[0]] // BLOCK - base // BLOCK + 1
                self._tails += [(TAIL_ITEM, part, start, len(piece), slot, base) for part in range(blocks)]
        last = len(self.by_path)
        for start in range(first, last, self._height):
            self._tiles.append((start, min(self._height, last - start), slot, base))

    def build(self) -> tuple[Items, bool]:
        """Items [W, COLUMNS], the longest first, and whether groups were done as such."""
        tiles = np.array(self._tiles, dtype=np.int64).reshape(-1, 4)
        full = tiles[:, 3] // BLOCK
        splits, groups = -(-full * BLOCK // SPLIT), full * BLOCK // GROUP
        grouped = int(splits.sum()) >= self._grouped_from
        whole = groups if grouped else np.zeros_like(groups)
        found = [_spread(tiles, GROUP_ITEM, np.zeros_like(whole), whole)] if grouped else []
        found.append(_spread(tiles, SPLIT_ITEM, whole * (GROUP // SPLIT), splits))
        found.append(np.array(self._tails, dtype=np.int64).reshape(-1, 6))
        items = np.zeros((sum(map(len, found)), COLUMNS), dtype=np.int64)
        np.concatenate(found, out=items[:, :6])
        return items, grouped


def _spread(tiles: Items, kind: int, first: Items, last: Items) -> Items:
    """An item for each tile and each part from ``first`` to before ``last`` of it."""
    counts = last - first
    ends = counts.cumsum()
    items = np.empty((int(ends[-1]) if len(ends) else 0, 6), dtype=np.int64)
    items[:, 0] = kind
    items[:, 1] = np.arange(len(items)) - (ends - counts - first).repeat(counts)
    items[:, 2:] = tiles.repeat(counts, axis=0)
    return items
