"""Records as a table where the terminal is wide enough, and one below the other where it is not: no value is cut."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

#: Columns of a terminal from which on there are two between the columns of a table.
_SPACIOUS = 100
#: A column of words that has less than this, and needs more, is no longer readable.
_NARROWEST = 12
_INDENT = 2


def record_table(
    width: int, words: Sequence[str], figures: Sequence[str], rows: Sequence[Sequence[str | Text]]
) -> RenderableType:
    """``rows``: the cells of ``words``, then those of ``figures``; a record's first cell names it.

    Figures are never broken. Words are folded in the room that the figures leave; where that is too little for a
    table, each record has lines of its own.
    """
    cells = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    headings = [*words, *figures]
    widest = [max(cell_len(name), *(row[i].cell_len for row in cells)) for i, name in enumerate(headings)]
    gap = 1 if width < _SPACIOUS else 2
    room = width - gap * (len(headings) - 1) - sum(widest[len(words) :])
    widths = _shared(room, widest[: len(words)])
    if any(given < min(wanted, _NARROWEST) for given, wanted in zip(widths, widest, strict=False)):
        return Group(*(_record(width, headings, row) for row in cells))
    table = Table(box=SIMPLE_HEAD, padding=(0, gap - 1, 0, 0), pad_edge=False, show_edge=False)
    for name, given in zip(words, widths, strict=True):
        table.add_column(name, overflow="fold", width=given)
    for name in figures:
        table.add_column(name, justify="right", no_wrap=True)
    for row in cells:
        table.add_row(*row)
    return table


def _shared(room: int, wanted: Sequence[int]) -> list[int]:
    """``room`` for columns that want so much: what the narrow ones leave of their share is for the wider ones."""
    widths = list(wanted)
    for done, index in enumerate(sorted(range(len(wanted)), key=lambda index: wanted[index])):
        widths[index] = min(wanted[index], max(room, 0) // (len(wanted) - done))
        room -= widths[index]
    return widths


def _record(width: int, headings: Sequence[str], cells: Sequence[Text]) -> RenderableType:
    """The name, and below it the other cells with their headings, as many to a line as there is room for."""
    named = Text.assemble((headings[0], "dim"), " ", cells[0])
    parts = [Text.assemble((name, "dim"), " ", cell) for name, cell in zip(headings[1:], cells[1:], strict=True)]
    lines = [parts[0]]
    for before, part in pairwise(parts):
        together = Text.assemble(lines[-1], "  ", part)
        if before.cell_len and together.cell_len <= width - _INDENT:
            lines[-1] = together
        else:
            lines.append(part)
    for line in (named, *lines):
        line.overflow = "fold"
    return Group(named, *(Padding(line, (0, 0, 0, _INDENT), expand=False) for line in lines))
