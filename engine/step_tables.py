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

from engine.attention_items import BLOCK, COLUMNS, NO_ITEM, ROOT, SPLIT, TAIL_BLOCKS, ItemList, Items
from engine.kv_pages import SCRATCH
from engine.step_kinds import NARROW, WIDE, StepKind, kinds, power_of_two, splits_for, work_for

#: Positions in a page.
PAGE = 16
#: New tokens on one path of a tree, so that they lie in two blocks at most.
MAX_DEPTH = BLOCK
#: Programs of the kernel, a split each, that fill the device: from here on each does a group of splits.
GROUPED_FROM = 512


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
    """Tables for steps of ``rows`` rows. ``page_table``: [sequences, pages of each].

    ``group``: query heads of a KV head, of which there are ``kv_heads``. What the attention kernel has to do are
    ``items``, see ``attention_items.py``.
    """

    def __init__(self, *, rows: int, page_table: Tensor, group: int, kv_heads: int = 1) -> None:
        self.rows = rows
        self._group = group
        self._most_queries = max(WIDE, power_of_two(group))
        #: Rows of a tile at most.
        self.height = self._most_queries // group
        self.page_table = page_table
        self._grouped_from = -(-GROUPED_FROM // kv_heads)
        most_items = rows * (-(-page_table.shape[1] * PAGE // SPLIT) + TAIL_BLOCKS)
        widths = {
            "tokens": rows,
            "write": rows,
            "row_position": rows,
            "row_slot": rows,
            "row_base": rows,
            "by_path": rows,
            "ancestors": rows * MAX_DEPTH,
            # Last, as only what is used of it travels.
            "items": COLUMNS * work_for(most_items),
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
        self.row_slot, self.row_base, self.by_path = view["row_slot"], view["row_base"], view["by_path"]
        self.ancestors = view["ancestors"].view(rows, MAX_DEPTH)
        self.items = view["items"].view(-1, COLUMNS)
        self.load([])

    def load(self, sequences: Sequence[SequenceRows]) -> None:
        """Lay out the coming step; rows that are left over belong to nobody. Raises ValueError beyond its size."""
        self._wait()
        column: dict[str, list[int]] = {name: [] for name in ("tokens", "write", "position", "slot", "base")}
        ancestors: list[list[int]] = []
        widest = max((len(sequence.tokens) for sequence in sequences), default=1)
        queries = NARROW if widest * self._group <= NARROW else self._most_queries
        work = ItemList(height=queries // self._group, grouped_from=self._grouped_from)
        for sequence in sequences:
            first = len(ancestors)
            ancestors += self._rows_of(sequence, column)
            positions = column["position"][first:]
            work.add(slot=sequence.slot, base=sequence.base, parents=sequence.parents, positions=positions)
        if len(ancestors) > self.rows:
            raise ValueError(f"{len(ancestors)} rows do not fit a step of {self.rows} rows")
        self._put("tokens", column["tokens"])
        self._put("write", column["write"], rest=SCRATCH * PAGE)
        self._put("row_position", column["position"])
        self._put("row_slot", column["slot"], rest=-1)
        self._put("row_base", column["base"])
        self._put("by_path", work.by_path)
        self._put_ancestors(ancestors)
        items, grouped = work.build()
        splits = splits_for(1 + max(column["position"], default=0), self.page_table.shape[1] * PAGE)
        self._send(items, StepKind(splits, work_for(len(items)), queries=queries, grouped=grouped))

    def load_nothing(self, kind: StepKind) -> None:
        """A step of that kind without any row: its work is done as soon as it is looked at."""
        self.load([])
        self._wait()
        self._send(np.zeros((0, COLUMNS), dtype=np.int64), kind)

    @property
    def most_splits(self) -> int:
        """That a row can have."""
        return -(-self.page_table.shape[1] * PAGE // SPLIT)

    def kinds(self, *, most_splits: int) -> list[StepKind]:
        """Those that steps can be of, see ``kinds`` in ``step_kinds.py``."""
        return list(
            kinds(
                pieces=self.rows,
                positions=self.page_table.shape[1] * PAGE,
                queries=(NARROW, self._most_queries) if self._group <= NARROW else (self._most_queries,),
                grouped_from=self._grouped_from,
                most_splits=most_splits,
            )
        )

    def _wait(self) -> None:
        """Or the copy of the step before would read what is written now."""
        if self._copied is not None:
            self._copied.synchronize()

    def _send(self, items: Items, kind: StepKind) -> None:
        """To the device: what was put, with these items."""
        self.kind = kind
        start = self._at["items"].start
        used = start + COLUMNS * kind.work
        table = self._written[start:used].reshape(kind.work, COLUMNS)
        table[: len(items)] = items
        table[len(items) :] = NO_ITEM
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
