"""Where a chat's questions come from: a terminal with line editing and history, or lines of a file or pipe.

Only the terminal needs prompt_toolkit, which is imported when there is one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rich.console import Console

from speculation.errors import InputError

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent


class ChatInput(Protocol):
    async def read(self) -> str | None:
        """The next question without blanks around it; None when there is no more."""


def chat_input(notes: Console, history: Path | None) -> ChatInput:
    """The terminal's, where there is one to type at and to show it on; else standard input line by line.

    ``history``: file that keeps what is typed; None: none.
    """
    if sys.stdin.isatty() and notes.is_terminal:
        return TerminalInput(history)
    return LineInput(notes)


class LineInput:
    """Lines of standard input."""

    def __init__(self, notes: Console) -> None:
        self._notes = notes

    async def read(self) -> str | None:
        """The next line, None at the end. Raises InputError for one of a file or pipe that is no UTF-8."""
        if not sys.stdin.isatty():
            # Bytes: what is in a file has nothing to do with the locale.
            written = await asyncio.to_thread(sys.stdin.buffer.readline)
            try:
                return written.decode().strip() if written else None
            except UnicodeDecodeError as error:
                raise InputError("line", written, f"is not UTF-8 at byte {error.start}", remedy="give UTF-8") from None
        self._notes.print("> ", end="", style="bold")
        # No thread that reads: Ctrl-C would wait for it. A terminal is readable when it has a whole line.
        loop = asyncio.get_running_loop()
        typed = asyncio.Event()
        loop.add_reader(sys.stdin, typed.set)
        try:
            await typed.wait()
        finally:
            loop.remove_reader(sys.stdin)
        line = sys.stdin.readline()
        return line.strip() if line else None


class TerminalInput:
    """Typed with prompt_toolkit, which shows it on standard error: standard output is for the answers."""

    def __init__(self, history: Path | None) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import InMemoryHistory
        from prompt_toolkit.output import create_output

        self._session: PromptSession[str] = PromptSession(
            [("bold", "> ")],
            multiline=True,
            prompt_continuation="  ",
            key_bindings=_key_bindings(),
            history=InMemoryHistory() if history is None else _file_history(history),
            output=create_output(sys.stderr),
        )

    async def read(self) -> str | None:
        while True:
            try:
                return (await self._session.prompt_async()).strip()
            except EOFError:
                return None
            except KeyboardInterrupt:
                # As in a shell, what was typed is dropped; at an empty prompt there is nothing else it could mean.
                if not self._session.default_buffer.text:
                    return None


def _key_bindings() -> KeyBindings:
    """Enter sends, unless a backslash is before it; Alt-Enter begins a new line."""
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("enter")
    def send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.char_before_cursor == "\\":
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    return keys


def _file_history(path: Path) -> History:
    """What was typed in earlier chats, for its user alone; a chat goes on where it cannot be read or written."""
    from prompt_toolkit.history import FileHistory

    class ForgivingHistory(FileHistory):
        def load_history_strings(self) -> Iterable[str]:
            with contextlib.suppress(OSError):
                return super().load_history_strings()
            return ()

        def store_string(self, string: str) -> None:
            # UnicodeError: bytes were typed that are no UTF-8.
            with contextlib.suppress(OSError, UnicodeError):
                path.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
                path.chmod(0o600)  # an older file may have been open to others
                super().store_string(string)

    return ForgivingHistory(str(path))
