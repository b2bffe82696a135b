"""What people see: live text in two colours, summary lines, tables, progress bars.

Text goes to standard output, everything about it to standard error, so that output can be piped.
"""

from __future__ import annotations

import codecs
import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from dragoman.client import Chunk, Completion
from speculation.errors import DragomanError

#: Written by a drafter and accepted; written by the target.
DRAFTED_STYLE = "green"
TARGET_STYLE = "default"

#: Bound to today's stderr: progress bars live through times when sys.stderr is redirected to silence a library.
err = Console(file=sys.stderr)


def show_error(error: DragomanError, console: Console | None = None) -> None:
    """One line of cause, one of remedy."""
    console = console or Console(stderr=True)
    console.print(Text.assemble(("error: ", "bold red"), error.message), soft_wrap=True)
    if error.remedy:
        console.print(Text.assemble(("   fix: ", "bold"), error.remedy), soft_wrap=True)


class LiveText:
    """Prints chunks as they come: drafted and accepted bytes in one colour, the target's own in another.

    Where the console is no terminal, the bare text is printed.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        # One decoder for both writers: a character may be begun by one and ended by the other.
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode

    def show(self, chunk: Chunk) -> None:
        line = Text(end="")
        for run in chunk.runs:
            line.append(self._decode(run.text), style=DRAFTED_STYLE if run.drafted else TARGET_STYLE)
        self._print(line)

    def end(self) -> None:
        """What an unfinished character left, and the end of the line."""
        self._print(Text(self._decode(b"", True), end=""))
        self._console.print()

    def _print(self, text: Text) -> None:
        if self._console.is_terminal:
            self._console.print(text, end="", soft_wrap=True, highlight=False)
        else:
            self._console.file.write(text.plain)
        self._console.file.flush()


def summary(completion: Completion) -> Text:
    """One line: tokens, speed, tokens per step, acceptance rate."""
    parts = [f"{completion.completion_tokens} tokens"]
    if completion.tokens_per_second is not None:
        parts.append(f"{completion.tokens_per_second:.1f} tokens/s")
    parts.append(f"first after {completion.ttft:.2f} s")
    if completion.tokens_per_step is not None:
        parts.append(f"{completion.tokens_per_step:.2f} tokens per step")
    rate = completion.acceptance_rate
    parts.append("no drafts" if rate is None else f"{rate:.0%} of draft tokens accepted")
    line = Text(" · ".join(parts), style="dim")
    if rate is not None:
        line.append("   ")
        line.append("drafted", style=DRAFTED_STYLE)
        line.append(" / target", style=TARGET_STYLE)
    return line


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A callback (stage, done, total) that draws a bar on a terminal, and a line per stage elsewhere."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    ) as bars:
        task = bars.add_task("", total=None, visible=False)
        stage_shown = ""

        def update(stage: str, done: int, total: int) -> None:
            nonlocal stage_shown
            if stage != stage_shown:
                stage_shown = stage
                if not err.is_terminal:
                    err.print(f"{stage} ...", highlight=False)
                bars.reset(task, visible=True)
            # A stage of one step says nothing until it is done: let the bar pulse.
            bars.update(task, description=stage, completed=done, total=total if total > 1 else None)

        yield update
