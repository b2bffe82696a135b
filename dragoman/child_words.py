"""What the children of a command say, on the terminal of the command."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status
from rich.text import Text

from dragoman.terminal import err


class ChildWords:
    """While the children start, a line on a terminal that tells of it; their log lines are printed.

    What a child writes while it loads goes into that line, where there is one; ``log`` and elsewhere it is printed, as
    what it writes later is. ``bare``: without the child's name before it, for logs that machines read. Use as a context
    manager.
    """

    def __init__(self, *, log: bool = False, bare: bool = False, console: Console = err) -> None:
        self._console = console
        self._bare = bare
        self._status: Status | None = None
        self._in_status = console.is_terminal and not (log or bare)

    def __enter__(self) -> Self:
        if self._in_status:
            self._status = self._console.status("")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.started()

    def starting(self, what: str) -> None:
        """What is being started now."""
        if self._status is not None:
            self._status.update(Text(f"starting {what}", no_wrap=True, overflow="ellipsis"))
        elif not self._bare:
            self._print(f"starting {what} ...")

    def heard(self, name: str, line: str) -> None:
        """A line of a child's standard error."""
        if self._status is not None:
            self._status.update(Text(f"starting {name}: {line}", no_wrap=True, overflow="ellipsis"))
        else:
            self._print(line if self._bare else f"{name}: {line}")

    def started(self) -> None:
        """All of them are there: nothing is drawn from now on. Idempotent."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _print(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)
