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
LEAST_SPLITS, SPLITS_TIMES = 40, 4


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


def splits_for(positions: int) -> int:
    """Room for the splits of so many positions."""
    needed, room = -(-positions // SPLIT), LEAST_SPLITS
    while room < needed:
        room *= SPLITS_TIMES
    return room


def kinds(
    *, pieces: int, positions: int, queries: tuple[int, ...], grouped_from: int, most_splits: int
) -> Iterator[StepKind]:
    """All that steps can be of whose rows have room for no more than ``most_splits``.

    ``pieces``: tiles and pieces of paths, at most. ``positions``: of a sequence, at most. ``grouped_from``: split items
    from which on they are grouped.
    """
    splits = LEAST_SPLITS
    while splits <= most_splits:
        reach = min(positions, splits * SPLIT)
        tails, whole = pieces * TAIL_BLOCKS, pieces * -(-reach // SPLIT)
        ranges = {False: (1, min(whole, grouped_from - 1) + tails)}
        if whole >= grouped_from:
            in_group = GROUP // SPLIT
            ranges[True] = (grouped_from // in_group, min(whole, pieces * (reach // GROUP + in_group)) + tails)
        for grouped, (least, most) in ranges.items():
            work = work_for(least)
            while work <= work_for(most):
                yield from (StepKind(splits, work, queries=each, grouped=grouped) for each in queries)
                work *= 2
        if reach == positions:
            break
        splits *= SPLITS_TIMES
