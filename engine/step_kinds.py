"""Of a step's tables all that a captured graph depends on, in few values, so that graphs can be there beforehand.

Matrix products depend on the number of rows alone, which a ``StepShape`` fixes. What is left is attention: how many
programs its kernel is launched with, by how many queries they are, and where their partial results lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from engine.attention_items import GROUP, SPLIT, TAIL_BLOCKS

#: Queries that are multiplied with keys together, of one KV head: rows times query heads of that head. As many as all
#: sequences of a step need. Both by the same instruction (with 64 it would be another one), so to the same bits.
NARROW, WIDE = 16, 32
#: Items that a step looks at, at least.
LEAST_WORK = 64
#: Splits for whose partial results there is room, at least (contexts of 4,096 tokens need no more), and how many times
#: as many there are in each larger kind.
LEAST_SPLITS, SPLITS_TIMES = 40, 3


class StepKind(NamedTuple):
    """``splits``: that a row has room for. ``work``: entries of the list of items to look at. ``queries``: NARROW or
    more. ``grouped``: whether whole groups of splits are one item each.
    """

    splits: int
    work: int
    queries: int
    grouped: bool


def power_of_two(number: int) -> int:
    """The next one."""
    return 1 << (max(number, 1) - 1).bit_length()


def work_for(items: int) -> int:
    """Entries to look at for so many items."""
    return max(LEAST_WORK, power_of_two(items))


def rooms(positions: int) -> Iterator[int]:
    """For the splits of a row, up to those of so many positions, which no row has more of."""
    most, room = -(-positions // SPLIT), LEAST_SPLITS
    while room < most:
        yield room
        room *= SPLITS_TIMES
    yield most


def splits_for(positions: int, most: int) -> int:
    """Room for the splits of so many positions, of ``most`` that there can be."""
    return next(room for room in rooms(most) if room * SPLIT >= positions)


def kinds(
    *, pieces: int, positions: int, queries: tuple[int, ...], grouped_from: int, most_splits: int
) -> Iterator[StepKind]:
    """All that steps can be of whose rows have room for no more than ``most_splits``.

    ``pieces``: tiles and pieces of paths, at most. ``positions``: of a sequence, at most. ``grouped_from``: split items
    from which on they are grouped.
    """
    for splits in rooms(positions):
        if splits > most_splits:
            break
        tails, whole = pieces * TAIL_BLOCKS, pieces * splits
        ranges = {False: (1, min(whole, grouped_from - 1) + tails)}
        if whole >= grouped_from:
            in_group = GROUP // SPLIT
            groups = pieces * (splits * SPLIT // GROUP + in_group)
            ranges[True] = (grouped_from // in_group, min(whole, groups) + tails)
        for grouped, (least, most) in ranges.items():
            work = work_for(least)
            while work <= work_for(most):
                yield from (StepKind(splits, work, queries=each, grouped=grouped) for each in queries)
                work *= 2
