"""A `dragoman` command on a terminal of its own: keys in, and the screen as a person sees it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable
from typing import Any

import pyte

CTRL_C, CTRL_D, ENTER, ALT_ENTER, UP = "\x03", "\x04", "\r", "\x1b\r", "\x1b[A"


class Terminal(pyte.HistoryScreen):
    """A screen whose keyboard is ``type``; ``seen`` is every byte that was written to it."""

    def __init__(self, columns: int, lines: int) -> None:
        super().__init__(columns, lines, history=2000)
        self.seen = b""
        self._keyboard, self._screen = pty.openpty()
        fcntl.ioctl(self._screen, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._stream = pyte.ByteStream(self)

    async def start(self, *arguments: str, **environment: str) -> asyncio.subprocess.Process:
        """`dragoman ARGUMENTS` on this terminal. ``environment``: further variables."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "dragoman", *arguments,
            stdin=self._screen, stdout=self._screen, stderr=self._screen, start_new_session=True,
            preexec_fn=_own_the_terminal,
            env={name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
            | {"OMP_NUM_THREADS": "1", "TERM": "xterm-256color", **environment},
        )  # fmt: skip
        asyncio.get_running_loop().add_reader(self._keyboard, self._read)
        return process

    def _read(self) -> None:
        try:
            data = os.read(self._keyboard, 65536)
        except OSError:  # nobody has it open any more
            asyncio.get_running_loop().remove_reader(self._keyboard)
            return
        self.seen += data
        self._stream.feed(data)

    def write_process_input(self, data: str) -> None:
        """The terminal's own answers, where the cursor is for example."""
        self.type(data)

    def type(self, keys: str) -> None:
        """Keys, as bytes that the terminal would send for them."""
        os.write(self._keyboard, keys.encode())

    @property
    def lines_shown(self) -> list[str]:
        """What was ever on the screen, without the blanks at the right and the empty lines at the end."""
        above = ["".join(line[x].data for x in range(self.columns)) for line in self.history.top]
        return "\n".join(line.rstrip() for line in [*above, *self.display]).rstrip("\n").split("\n")

    @property
    def text(self) -> str:
        """``lines_shown`` as one string."""
        return "\n".join(self.lines_shown)

    async def until(self, condition: Callable[[], Any]) -> None:
        """Until the screen is so. Raises TimeoutError with the screen."""
        try:
            async with asyncio.timeout(120):
                while not condition():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise TimeoutError(f"the screen is still:\n{self.text}") from None

    async def shows(self, words: str) -> None:
        """Until these words are, or were, on the screen."""
        await self.until(lambda: words in self.text)

    def close(self) -> None:
        """Nobody looks at it any more; what still runs on it notices."""
        asyncio.get_running_loop().remove_reader(self._keyboard)
        os.close(self._keyboard)
        os.close(self._screen)


def _own_the_terminal() -> None:
    """It is the terminal that turns Ctrl-C into a signal, for those whose terminal it is."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # jobs in the background of a shell are born deaf to it


@contextlib.asynccontextmanager
async def on_terminal(
    *arguments: str, columns: int = 80, lines: int = 24, **environment: str
) -> AsyncIterator[tuple[Terminal, asyncio.subprocess.Process]]:
    """`dragoman ARGUMENTS` on a terminal; killed when the block is left, if it is still there."""
    terminal = Terminal(columns, lines)
    process = await terminal.start(*arguments, **environment)
    try:
        yield terminal, process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        terminal.close()
