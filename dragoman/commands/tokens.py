"""`dragoman tokens`: who is let in by a bearer token instead of a certificate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dragoman.options import AsJson
from transport.identity import Role

tokens_app = typer.Typer(
    no_args_is_help=True, help="Bearer tokens, where certificates are too much: add, remove, list."
)

_FILE = Path("tokens")
TokensFile = Annotated[Path, typer.Option("--tokens", help="The file that servers are given", metavar="FILE")]


@tokens_app.command()
def add(
    role: Annotated[Role, typer.Argument(help="What its holder may do; client: have text written")],
    name: Annotated[str, typer.Argument(help="Who its holder is, anna say")],
    tokens: TokensFile = _FILE,
    to: Annotated[
        Path | None, typer.Option(help="New file for the token  [default: standard output]", metavar="FILE")
    ] = None,
) -> None:
    """Make a token. It is told once; the file keeps its digest."""
    from dragoman.tokens import run_add

    run_add(tokens, role, name, to)


@tokens_app.command()
def remove(
    name: Annotated[str, typer.Argument(help="Whose tokens; of all roles")],
    tokens: TokensFile = _FILE,
) -> None:
    """Take a holder out; servers notice at the next call."""
    from dragoman.tokens import run_remove

    run_remove(tokens, name)


@tokens_app.command("list")
def list_tokens(tokens: TokensFile = _FILE, as_json: AsJson = False) -> None:
    """Who has tokens, and for what."""
    from dragoman.tokens import run_list

    run_list(tokens, as_json=as_json)
