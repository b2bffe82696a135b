"""Which rows a step runs and which keys each of them sees: plain integers, laid out as the attention kernel reads them.

A step holds rows of several sequences. Each sequence has committed positions, kept in pages, and in this step a tree
of new tokens after them. The tables are static on the device, so that a captured CUDA graph reads what was copied in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.kv_pages import SCRATCH

#: Positions in a page.
PAGE = 16
#: Positions whose keys are summed by themselves, and whose sums are merged before they meet others (tree_attention.py).
BLOCK, SPLIT = 64, 128
#: Queries that are multiplied with keys together, of one KV head: rows times query heads of that head.
QUERIES = 64
#: New tokens on one path of a tree, so that they lie in two blocks at most.
MAX_DEPTH = BLOCK
TAIL_BLOCKS = 2
#: Items that a step looks at, at least.
LEAST_WORK = 64
#: Parent of a token that follows the committed positions.
ROOT = -1


@dataclass(frozen=True, slots=True)
class SequenceRows:
    """New tokens of one sequence. ``slot``: its line of the page table. ``base``: committed positions before them.

    ``parents[i]``: which of the tokens stands before token i, or ROOT; parents come first. New token i is written at
    position ``base + held + i``'s place, whatever its depth, so ``pages`` reach that far.
    ``held``: rows of a tree that earlier steps wrote after ``base``. ``above[i]``: which of these, in order, stand
    between the committed positions and token i, whose parent is ROOT; none if it is left out.
    """

    slot: int
    base: int
    tokens: Sequence[int]
    parents: Sequence[int]
    pages: Sequence[int]
    held: int = 0
    above: Sequence[Sequence[int]] = ()

    def place(self, position: int) -> int:
        """Where the key of a position lies in KV memory."""
        return self.pages[position // PAGE] * PAGE + position % PAGE

    def held_places(self, index: int) -> list[int]:
        """Of the rows above a token, before any of this step."""
        return [self.place(self.base + row) for row in self.above[index]] if self.above else []


class StepTables:
    """Tables for steps of ``rows`` rows over ``slots`` sequences of up to ``pages_per_slot`` pages each.

    ``group``: query heads of a KV head. What the attention kernel has to do is a list of ``items``: (tile, split) for
    blocks that are committed as a whole, (-2 - row, block beside them) for the others, (-1, 0) for nothing.
    """

    def __init__(self, *, rows: int, slots: int, page_table: Tensor, group: int) -> None:
        self.rows = rows
        self.height = QUERIES // group  # rows of a tile
        if self.height == 0:
            raise ValueError(f"{group} query heads share a KV head; at most {QUERIES} can")
        self.tiles = -(-rows // self.height) + min(slots, rows)
        self.page_table = page_table
        #: Splits that the step's positions reach into, and entries of ``items`` to look at: powers of two.
        self.splits, self.work = 1, LEAST_WORK
        most_splits = -(-page_table.shape[1] * PAGE // SPLIT)
        widths = {
            "tokens": rows,
            "write": rows,
            "row_position": rows,
            "row_slot": rows,
            "row_base": rows,
            "tile_slot": self.tiles,
            "tile_row": self.tiles,
            "tile_rows": self.tiles,
            "ancestors": rows * MAX_DEPTH,
            # Last, as only what is used of it travels.
            "items": 2 * power_of_two(max(LEAST_WORK, self.tiles * most_splits + rows * TAIL_BLOCKS)),
        }
        device = page_table.device
        self._copied = torch.cuda.Event() if device.type == "cuda" else None
        self._host = torch.zeros(sum(widths.values()), dtype=torch.int64, pin_memory=device.type == "cuda")
        self._written = self._host.numpy()  # the same memory: many small writes are quicker so
        self._device = torch.zeros_like(self._host, device=device)
        self._at: dict[str, slice] = {}
        start = 0
        for name, width in widths.items():
            self._at[name] = slice(start, start + width)
            start += width
        view = {name: self._device[at] for name, at in self._at.items()}
        self.tokens, self.write, self.row_position = view["tokens"], view["write"], view["row_position"]
        self.row_slot, self.row_base = view["row_slot"], view["row_base"]
        self.tile_slot, self.tile_row, self.tile_rows = view["tile_slot"], view["tile_row"], view["tile_rows"]
        self.ancestors = view["ancestors"].view(rows, MAX_DEPTH)
        self.items = view["items"].view(-1, 2)
        self.load([])

    def load(self, sequences: Sequence[SequenceRows]) -> None:
        """Lay out the coming step; rows that are left over belong to nobody. Raises ValueError beyond its size."""
        if self._copied is not None:
            self._copied.synchronize()  # or the copy of the step before would read what is written now
        column: dict[str, list[int]] = {name: [] for name in ("tokens", "write", "position", "slot", "base")}
        ancestors: list[list[int]] = []
        tiles: list[tuple[int, int, int]] = []
        items: list[int] = []
        for sequence in sequences:
            first = len(ancestors)
            chains = self._rows_of(sequence, column)
            ancestors += chains
            last = len(ancestors)
            for at in range(first, last, self.height):
                whole_blocks = sequence.base // BLOCK
                for split in range(-(-whole_blocks * BLOCK // SPLIT)):
                    items += (len(tiles), split)
                tiles.append((sequence.slot, at, min(self.height, last - at)))
        for row, (base, position) in enumerate(zip(column["base"], column["position"], strict=True)):
            for tail in range(position // BLOCK - base // BLOCK + 1):
                items += (-2 - row, tail)
        if len(ancestors) > self.rows or len(tiles) > self.tiles:
            raise ValueError(f"{len(ancestors)} rows in {len(tiles)} tiles do not fit a step of {self.rows} rows")
        self._put("tokens", column["tokens"])
        self._put("write", column["write"], rest=SCRATCH * PAGE)
        self._put("row_position", column["position"])
        self._put("row_slot", column["slot"], rest=-1)
        self._put("row_base", column["base"])
        for number, (name, rest) in enumerate((("tile_slot", -1), ("tile_row", 0), ("tile_rows", 0))):
            self._put(name, [tile[number] for tile in tiles], rest=rest)
        self._put_ancestors(ancestors)
        self.work = max(LEAST_WORK, power_of_two(len(items) // 2))
        self.splits = power_of_two(max((position // SPLIT + 1 for position in column["position"]), default=1))
        self._put("items", items, rest=0)
        used = self._at["items"].start + 2 * self.work
        self._written[self._at["items"].start + len(items) : used : 2] = -1
        self._device[:used].copy_(self._host[:used], non_blocking=True)
        if self._copied is not None:
            self._copied.record()

    @staticmethod
    def _rows_of(sequence: SequenceRows, column: dict[str, list[int]]) -> list[list[int]]:
        """Append a sequence's rows to the columns; returns the places of each row's ancestors, and its own."""
        chains: list[list[int]] = []
        for index, (token, parent) in enumerate(zip(sequence.tokens, sequence.parents, strict=True)):
            place = sequence.place(sequence.base + sequence.held + index)
            chain = [*(chains[parent] if parent != ROOT else sequence.held_places(index)), place]
            if len(chain) > MAX_DEPTH:
                raise ValueError(f"a path of {len(chain)} new tokens is longer than {MAX_DEPTH}")
            chains.append(chain)
            column["tokens"].append(token)
            column["write"].append(place)
            column["position"].append(sequence.base + len(chain) - 1)
            column["slot"].append(sequence.slot)
            column["base"].append(sequence.base)
        return chains

    def _put(self, name: str, values: list[int], *, rest: int = 0) -> None:
        """``rest``: for what is left over of the table."""
        at = self._at[name]
        self._written[at.start : at.start + len(values)] = values
        self._written[at.start + len(values) : at.stop] = rest

    def _put_ancestors(self, chains: list[list[int]]) -> None:
        table = self._written[self._at["ancestors"]].reshape(self.rows, MAX_DEPTH)
        table[:] = 0
        deepest = max(map(len, chains), default=0)
        if deepest:
            padded = [place for chain in chains for place in (*chain, *[0] * (deepest - len(chain)))]
            table[: len(chains), :deepest] = np.array(padded, dtype=np.int64).reshape(-1, deepest)


def power_of_two(number: int) -> int:
    """The next one: steps are captured in few sizes."""
    return 1 << (max(number, 1) - 1).bit_length()
