"""--tls-cert, --tls-key, --tls-ca and --allow-plaintext, for every command that serves or dials."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Annotated, Any

import typer

from transport.security import PREFIX, Security

_ALLOW = "allow_plaintext"


def secured(command: Callable[..., None]) -> Callable[..., None]:
    """The command with these options besides its own; it takes them all as its parameter ``security``.

    What is not given comes from the environment: DRAGOMAN_<COMMAND>_TLS_CA, and for all commands DRAGOMAN_TLS_CA.
    """

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        named = {name: given.pop(name) for name in Security.model_fields}
        command(**given, security=Security(**named).or_environment())

    own = [parameter for name, parameter in inspect.signature(command).parameters.items() if name != "security"]
    hints = typing.get_type_hints(command, include_extras=True)
    parameters = [parameter.replace(annotation=hints[parameter.name]) for parameter in own]
    parameters += [_parameter(name) for name in Security.model_fields]
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def _parameter(name: str) -> inspect.Parameter:
    field = Security.model_fields[name]
    words = f"{field.description}; for all commands {PREFIX}{name.upper()}"
    # A bare flag: there is nothing that --no-allow-plaintext would take back.
    switch = name == _ALLOW
    option = typer.Option("--allow-plaintext", help=words) if switch else typer.Option(help=words, metavar="FILE")
    annotation = Annotated[bool, option] if switch else Annotated[str | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=annotation)
