"""Standard output as commands write to it: a full disk is one line and exit code 1, a reader that left is silence.

Python writes what is left at its very end, where an error is a traceback that nobody can catch; so `main` runs within
``standard_output``, which writes it before.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

from speculation.errors import DragomanError

#: What a shell reports of a program that wrote to a pipe without a reader: 128 + SIGPIPE.
READER_LEFT = 141


class _Checked(io.FileIO):
    def write(self, data: Any) -> int | None:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError as error:
            # What is buffered still must go nowhere, without another error.
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self.fileno())
            if isinstance(error, BrokenPipeError):
                raise SystemExit(READER_LEFT) from None
            from dragoman.terminal import show_error

            problem = f"standard output cannot be written to: {error.strerror}"
            show_error(DragomanError(problem, remedy="make room, or send the output elsewhere"))
            raise SystemExit(DragomanError.exit_code) from None


@contextlib.contextmanager
def standard_output() -> Iterator[None]:
    """Within it, an error of writing to standard output ends the program, and a character that the encoding lacks is
    replaced. Leaves a standard output alone that is none of the process's own, a test's say."""
    own = sys.stdout
    if isinstance(own, io.TextIOWrapper) and own is sys.__stdout__:
        own.flush()
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Checked(own.fileno(), "w", closefd=False)),
            encoding=own.encoding,
            errors="replace",
            line_buffering=own.line_buffering,
            write_through=own.write_through,
        )
    try:
        yield
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()
