"""The table of `dragoman demo`: a row for each prompt, printed as soon as it has been answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.segment import Segments
from rich.status import Status
from rich.table import Table
from rich.text import Text

from speculation.protocol.completion import Completion
from speculation.protocol.messages import Prompt

HEADINGS = ("alone\ntokens/s", "drafted\ntokens/s", "ratio", "tokens\nper step", "accepted", "same\ntext")
#: Columns that figures take at most: rows that have been printed cannot be widened by later ones.
_WIDTHS = (8, 8, 6, 8, 8, 4)
#: Below the heading, an edge that is only there once all rows are.
_EDGE = 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """One prompt, answered by the target alone and with the drafter."""

    prompt: Prompt
    alone: Completion
    drafted: Completion

    @property
    def identical(self) -> bool:
        return self.alone.data == self.drafted.data and self.alone.token_ids == self.drafted.token_ids

    @property
    def ratio(self) -> float | None:
        """Decoding speed with the drafter over that without."""
        if self.alone.tpot is None or not self.drafted.tpot:
            return None
        return self.alone.tpot / self.drafted.tpot

    def to_json(self) -> dict[str, Any]:
        return {
            "prompt": title(self.prompt),
            "identical": self.identical,
            "ratio": self.ratio,
            "alone": self.alone.to_json(),
            "drafted": self.drafted.to_json(),
        }


class DemoTable:
    """Begins with the headings. ``console``: where it goes, a terminal or not.

    ``status``: the line on this terminal that tells what is going on, which is put away while others are printed.
    """

    def __init__(self, console: Console, status: Status) -> None:
        self._console = console
        self._status = status
        self._rows: list[Comparison] = []
        self._printed = 0
        self._print()

    def add(self, comparison: Comparison) -> None:
        """Print one more row."""
        self._rows.append(comparison)
        self._print()

    def end(self, speed_up: float | None, *, identical: bool) -> None:
        """Print the last line."""
        self._status.stop()
        line = Text.assemble("\nspeed-up ", (_number(speed_up, ".2f", "x"), "bold"), ", identical: ")
        self._console.print(line + _yes(identical))

    def _print(self) -> None:
        """Lines that are new since the last time."""
        lines = self._console.render_lines(_table(self._rows, self._console.width), pad=False, new_lines=True)
        new = lines[self._printed : len(lines) - _EDGE]
        self._printed += len(new)
        self._status.stop()
        self._console.print(Segments([segment for line in new for segment in line]), end="")
        self._status.start()


def title(prompt: Prompt) -> str:
    """The first line of what is asked."""
    text = prompt.text if prompt.text is not None else prompt.messages[-1].content
    return text.strip().splitlines()[0]


def _table(rows: Sequence[Comparison], width: int) -> Table:
    table = Table(title="The same text, target alone and with the drafter", title_justify="left", box=SIMPLE_HEAD)
    table.width = min(width, 110)
    table.add_column("prompt", no_wrap=True, overflow="ellipsis", ratio=1)
    for heading, least in zip(HEADINGS, _WIDTHS, strict=True):
        # On a narrow terminal only the prompt is cut.
        table.add_column(heading, justify="right", min_width=least)
    for comparison in rows:
        drafted = comparison.drafted
        table.add_row(
            title(comparison.prompt),
            _number(comparison.alone.tokens_per_second, ".1f"),
            _number(drafted.tokens_per_second, ".1f"),
            _number(comparison.ratio, ".2f", "x"),
            _number(drafted.tokens_per_step, ".2f"),
            _number(drafted.drafter_acceptance_rate, ".0%"),
            _yes(comparison.identical),
        )
    return table


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"


def _yes(value: bool) -> Text:
    return Text("yes", style="green") if value else Text("NO", style="bold red")
