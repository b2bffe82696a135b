"""Options of the command line from the fields of a settings model: one help text, one default, one check for both."""

from __future__ import annotations

from typing import Any, TypeVar

import typer
from pydantic import ValidationError

from speculation.errors import InputError
from transport.settings import Settings

_S = TypeVar("_S", bound=Settings)


def option_of(model: type[Settings], name: str, *, bounds: bool = False) -> Any:
    """``bounds``: the field's limits are told by the help text and checked before anything else is."""
    field = model.model_fields[name]
    limits: dict[str, Any] = {}
    for rule in field.metadata if bounds else ():
        if (least := getattr(rule, "ge", None)) is not None:
            limits["min"] = least
        if (most := getattr(rule, "le", None)) is not None:
            limits["max"] = most
    return typer.Option(help=field.description, **limits)


def default_of(model: type[Settings], name: str) -> Any:
    """The field's default."""
    return model.model_fields[name].default


def settings_from(kind: type[_S], /, **values: Any) -> _S:
    """The checked settings. Raises InputError, which names the option as it is written on the command line."""
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(part for part in first["loc"] if isinstance(part, str))  # a list is one option
        problem = first["msg"].removeprefix("Value error, ")
        raise InputError(name.replace("_", "-"), first["input"], problem[:1].lower() + problem[1:]) from error
