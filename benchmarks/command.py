"""A benchmark as a command: a mistake of its user is a line and an exit code, as with `dragoman` itself."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from dragoman.terminal import show_error
from speculation.errors import DragomanError


def run_command(main: Callable[..., None] | typer.Typer) -> None:
    """Run ``main``, or one of several commands, with the options of the command line; a DragomanError is no
    traceback."""
    try:
        if isinstance(main, typer.Typer):
            main()
        else:
            typer.run(main)
    except DragomanError as error:
        show_error(error)
        sys.exit(error.exit_code)
