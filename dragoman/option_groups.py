"""Options that several commands share, which each command takes together as one value."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Sequence
from typing import Any


def option(name: str, annotation: Any, default: object) -> inspect.Parameter:
    """One of a group; ``annotation``: with its ``typer.Option``."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def grouped(
    command: Callable[..., None],
    name: str,
    options: Sequence[inspect.Parameter],
    value_of: Callable[[dict[str, Any]], object],
) -> Callable[..., None]:
    """The command with these options behind its own; it takes ``value_of`` what was given as its parameter ``name``."""

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        values = {each.name: given.pop(each.name) for each in options}
        command(**given, **{name: value_of(values)})

    hints = typing.get_type_hints(command, include_extras=True)
    own = [each for each in inspect.signature(command).parameters.values() if each.name != name]
    parameters = [
        *(each.replace(annotation=hints[each.name], kind=inspect.Parameter.KEYWORD_ONLY) for each in own),
        *options,
    ]
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {each.name: each.annotation for each in parameters}
    return with_options
