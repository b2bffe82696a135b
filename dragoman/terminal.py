"""What people see: live text in the colours of who guessed it, summary lines, progress bars.

Text goes to standard output, everything about it to standard error, so that output can be piped.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import sys
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from speculation.errors import DragomanError
from speculation.plural import count_of
from speculation.protocol.completion import Completion
from speculation.protocol.generation import Chunk, SourceStats
from speculation.source import SourceKind
from speculation.text.text_stream import TextRun

#: Guessed by a drafter, or by whom an old verifier does not say; guessed by others; written by the target.
DRAFTED_STYLE = "green"
SOURCE_STYLES = {
    SourceKind.DRAFTER: DRAFTED_STYLE,
    SourceKind.PREDICTION: "magenta",
    SourceKind.LOOKUP: "cyan",
    SourceKind.REPLAY: "blue",
    SourceKind.GRAMMAR: "yellow",
    SourceKind.RECYCLED: "bright_cyan",
}
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
    """Prints chunks as they come: accepted bytes in the colour of who guessed them, the target's own in another.

    Where the console is no terminal, the bare bytes of the text are written, whatever the encoding of the locale.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        # One decoder for both writers: a character may be begun by one and ended by the other.
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._line_begun = False

    def show(self, chunk: Chunk) -> None:
        text = b"".join(run.text for run in chunk.runs)
        self._line_begun = not text.endswith(b"\n") if text else self._line_begun
        if not self._console.is_terminal:
            self._write(text)
            return
        line = Text(end="")
        for run in chunk.runs:
            line.append(self._decode(run.text), style=style_of(run))
        self._print(line)

    def end(self) -> None:
        """What an unfinished character left, and the end of the line."""
        self._line_begun = False
        if not self._console.is_terminal:
            self._write(b"\n")
            return
        self._print(Text(self._decode(b"", True), end=""))
        self._console.print()

    def break_off(self) -> None:
        """The text ends in its middle: what is said of it begins on a line of its own."""
        if self._line_begun:
            self.end()

    def _print(self, text: Text) -> None:
        self._console.print(text, end="", soft_wrap=True, highlight=False)
        self._console.file.flush()

    def _write(self, text: bytes) -> None:
        file = self._console.file
        if isinstance(file, io.TextIOWrapper):
            file.flush()  # what was written as characters comes first
            file.buffer.write(text)
        else:
            file.write(self._decode(text))
        file.flush()


def style_of(run: TextRun) -> str:
    """The colour of who wrote it."""
    if not run.drafted:
        return TARGET_STYLE
    return SOURCE_STYLES[run.source] if run.source is not None else DRAFTED_STYLE


def summary(completion: Completion) -> Text:
    """One line: tokens, speed, tokens per step, who drafted how well; and the colours that occur in the text."""
    parts = [count_of(completion.completion_tokens, "token")]
    if completion.tokens_per_second is not None:
        parts.append(f"{completion.tokens_per_second:.1f} tokens/s")
    parts.append(f"first after {completion.ttft:.2f} s")
    if completion.tokens_per_step is not None:
        parts.append(f"{completion.tokens_per_step:.2f} tokens per step")
    parts.append(who_drafted(completion))
    line = Text(" · ".join(parts), style="dim")
    if drafted := {run.source for run in completion.runs if run.drafted}:
        line.append("   ")
        for kind in [None, *SourceKind]:
            if kind in drafted:
                word, style = ("drafted", DRAFTED_STYLE) if kind is None else (kind.label, SOURCE_STYLES[kind])
                line.append(word, style=style).append(" / ")
        line.append("target", style=TARGET_STYLE)
    return line


def who_drafted(completion: Completion) -> str:
    """How many of whose draft tokens were accepted, or why no drafter's were."""
    connected = completion.drafters_connected
    if connected is None:
        rate = completion.acceptance_rate
        return "no drafts" if rate is None else f"{rate:.0%} of draft tokens accepted"
    drafters = completion.shares_of(SourceKind.DRAFTER)
    names = _short_names(drafters)
    if any(share.draft_tokens for share in drafters):
        words = [
            f"{name} {share.acceptance_rate:.0%} of {share.draft_tokens}"
            for name, share in zip(names, drafters, strict=True)
            if share.acceptance_rate is not None
        ]
        words[-1] += " draft tokens accepted"
    elif not completion.drafters_allowed:
        words = ["no drafter was asked"]
    elif not connected:
        words = ["no drafter is connected"]
    elif drafters:
        words = [f"no draft of {' or '.join(names)} was verified"]
    else:
        words = [f"no drafter took part ({connected} connected)"]
    others = [share for share in completion.shares if share.source is not SourceKind.DRAFTER and share.draft_tokens]
    words += [f"{share.source.label} {share.accepted_tokens} of {share.draft_tokens}" for share in others]
    return ", ".join(words)


def _short_names(drafters: Sequence[SourceStats]) -> list[str]:
    """Their models, where that says who is meant: the target looks up as well, and several may have one model."""
    models = [share.model for share in drafters]
    own = {kind.label for kind in SourceKind}
    return [
        share.model if share.model and share.model not in own and models.count(share.model) == 1 else share.name
        for share in drafters
    ]


def show_summary(completion: Completion, console: Console) -> None:
    """On a terminal cut between words, elsewhere one line."""
    console.print(summary(completion), soft_wrap=not console.is_terminal)


@contextlib.contextmanager
def progress_bar(console: Console = err) -> Iterator[Callable[[str, int, int], None]]:
    """A callback (stage, done, total) that draws a bar on a terminal, and a line per stage elsewhere."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bars:
        task = bars.add_task("", total=None, visible=False)
        stage_shown = ""

        def update(stage: str, done: int, total: int) -> None:
            nonlocal stage_shown
            if stage != stage_shown:
                stage_shown = stage
                if not console.is_terminal:
                    console.print(f"{stage} ...", highlight=False)
                bars.reset(task, visible=True)
            # A stage of one step says nothing until it is done: let the bar pulse.
            bars.update(task, description=stage, completed=done, total=total if total > 1 else None)

        yield update
