"""`dragoman doctor`: will a target and a drafter work together?"""

from __future__ import annotations

from typing import Annotated

import typer

from dragoman.options import MODEL_HELP


def doctor(
    target: Annotated[str, typer.Option(help=MODEL_HELP)],
    drafter: Annotated[str, typer.Option(help=f"{MODEL_HELP}, or lookup")],
) -> None:
    """Will this target and this drafter work together? Exit code 3 if not."""
    from rich.console import Console

    from dragoman.doctor import PairVerdict, diagnose, show

    found = diagnose(target, drafter)
    show(found, Console())
    if found.verdict is PairVerdict.CANNOT:
        raise typer.Exit(3)
