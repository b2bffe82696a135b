"""Of what kinds steps are: few, and all of them known before the first one comes."""

from __future__ import annotations

import random

import pytest
import torch

from engine.attention_items import NO_ITEM, ROOT, SPLIT
from engine.step_kinds import splits_for, work_for
from engine.step_tables import PAGE, SequenceRows, StepTables

#: More than any context here needs.
ALL_SPLITS = 10**6


def tables_of(*, rows: int = 64, context: int = 2048, group: int = 4, kv_heads: int = 8, slots: int = 64) -> StepTables:
    table = torch.zeros((slots, -(-(context + rows) // PAGE)), dtype=torch.int64)
    return StepTables(rows=rows, page_table=table, group=group, kv_heads=kv_heads)


def chain(slot: int, base: int, rows: int) -> SequenceRows:
    return SequenceRows(slot, base, (0,) * rows, range(ROOT, rows - 1), [0] * (-(-(base + rows) // PAGE)))


@pytest.mark.parametrize("kv_heads", [1, 3, 8, 64])
@pytest.mark.parametrize("group", [1, 3, 7, 16, 40])
def test_whatever_comes_is_of_a_known_kind(group: int, kv_heads: int):
    tables = tables_of(group=group, kv_heads=kv_heads, context=4096)
    known = set(tables.kinds(most_splits=ALL_SPLITS))
    chance = random.Random(1)
    for _ in range(200):
        sequences: list[SequenceRows] = []
        left = 64
        same = chance.random() < 0.5
        rows, base = chance.randint(1, 64), chance.randint(0, 4096)
        while left and len(sequences) < 64 and (not sequences or chance.random() < 0.9):
            if not same:
                rows, base = chance.randint(1, 64), chance.randint(0, 4096)
            count = min(rows, left)
            # Branches from the root or from one another: as many paths, and so as much to do, as there can be.
            parents = [chance.randint(ROOT, row - 1) if chance.random() < 0.5 else ROOT for row in range(count)]
            pages = [0] * (-(-(base + count) // PAGE))
            sequences.append(SequenceRows(len(sequences), base, (0,) * count, parents, pages))
            left -= count
        tables.load(sequences)
        assert tables.kind in known
    tables.load([])
    assert tables.kind in known


@pytest.mark.parametrize("group", [1, 4, 16])
def test_a_chunk_of_any_prompt_is_of_a_known_kind(group: int):
    tables = tables_of(rows=256, context=8192, group=group)
    known = set(tables.kinds(most_splits=ALL_SPLITS))
    for base in range(0, 8192 - 256, 64):
        for rows in (256, 200, 65, 2):
            parts = [chain(0, base + at, min(tables.height, rows - at)) for at in range(0, rows, tables.height)]
            tables.load(parts)
            assert tables.kind in known


def test_they_are_few_and_those_of_long_contexts_can_be_left():
    tables = tables_of(context=131_072)
    everything = tables.kinds(most_splits=ALL_SPLITS)
    short = tables.kinds(most_splits=40)
    assert len(set(everything)) == len(everything) < 120
    assert 8 <= len(short) < 30 and set(short) < set(everything)
    assert {kind.splits for kind in short} == {40}
    assert not tables.kinds(most_splits=39)


def test_a_step_of_a_kind_that_holds_nothing_has_nothing_to_do():
    tables = tables_of(rows=16, context=512)
    tables.load([chain(0, 500, 8), chain(1, 300, 8)])
    for kind in tables.kinds(most_splits=ALL_SPLITS):
        tables.load_nothing(kind)
        assert tables.kind == kind
        assert (tables.items[: kind.work, 0] == NO_ITEM).all() and len(tables.items) >= kind.work
        assert (tables.row_slot == -1).all()


def test_room_grows_by_steps():
    reach, most = 40 * SPLIT, 1000 * SPLIT
    assert [splits_for(positions, most) for positions in (0, 1, reach, reach + 1, 3 * reach + 1, 9 * reach + 1)] == [
        40, 40, 40, 120, 360, 1000,
    ]  # fmt: skip
    assert splits_for(100, 300) == 3, "no more than there are positions"
    assert [work_for(items) for items in (0, 64, 65, 129)] == [64, 64, 128, 256]
