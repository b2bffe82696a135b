"""--tls-cert, --tls-key, --tls-ca and --allow-plaintext, for every command that serves or dials."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated

import typer

from dragoman.option_groups import grouped, option
from transport.security import PREFIX, Security

_ALLOW = "allow_plaintext"


def secured(command: Callable[..., None]) -> Callable[..., None]:
    """The command with these options besides its own; it takes them all as its parameter ``security``.

    What is not given comes from the environment: DRAGOMAN_<COMMAND>_TLS_CA, and for all commands DRAGOMAN_TLS_CA.
    """
    options = [_option(name) for name in Security.model_fields]
    return grouped(command, "security", options, lambda given: Security(**given).or_environment())


def _option(name: str) -> inspect.Parameter:
    field = Security.model_fields[name]
    words = f"{field.description}; for all commands {PREFIX}{name.upper()}"
    # A bare flag: there is nothing that --no-allow-plaintext would take back.
    if name == _ALLOW:
        return option(name, Annotated[bool, typer.Option("--allow-plaintext", help=words)], field.default)
    return option(name, Annotated[str | None, typer.Option(help=words, metavar="FILE")], field.default)
