"""Mistakes on the command line that typer finds, said as all others are: field, value, problem, remedy.

Typer's own words name neither the value nor what to do, and begin with two lines about usage.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import typer

from speculation.errors import InputError

#: By the beginning of pydantic's kind of error: what is wrong, and what would be right.
_UNREADABLE = {
    "int": ("is no whole number", "a whole number"),
    "float": ("is no number", "a number such as 0.5"),
    "bool": ("is neither true nor false", "true or false"),
}


def as_input_error(error: typer.TyperException, arguments: Sequence[str]) -> InputError:
    """The same mistake as one of ours. ``arguments``: of the command line."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "dragoman"
    # Only the base and BadParameter are public, but the names of the others are as old as click.
    match type(error).__name__:
        case "NoSuchOption":
            return _no_such("option", getattr(error, "option_name", ""), _options(context), command)
        case "BadOptionUsage":
            return _bad_usage(getattr(error, "option_name", ""), arguments)
        case "MissingParameter":
            return _missing(getattr(error, "param", None), command)
        case "BadParameter":
            return _bad_value(error, command)
    words = error.format_message()
    group: dict[str, object] = getattr(context.command, "commands", {}) if context is not None else {}
    if group and words.startswith("No such command"):
        wanted = words.split("'")[1] if "'" in words else words
        return _no_such("command", wanted, list(group), command)
    if words.startswith("Got unexpected extra argument"):
        return InputError(
            "argument",
            words.partition("(s) (")[2].removesuffix(")"),
            f"is more than `{command}` takes",
            remedy=f"quote a value with spaces in it; see `{command} --help`",
        )
    return InputError("arguments", " ".join(arguments), words.rstrip("."), remedy=f"see `{command} --help`")


def _no_such(kind: str, given: str, known: Sequence[str], command: str) -> InputError:
    near = difflib.get_close_matches(given, known, n=3)
    guess = f"did you mean {' or '.join(near)}? " if near else ""
    return InputError(kind, given, f"is no {kind} of `{command}`", remedy=f"{guess}`{command} --help` lists them")


def _options(context: Any) -> list[str]:
    """All spellings that the command knows."""
    if context is None:
        return []
    return [name for param in context.command.params for name in (*param.opts, *param.secondary_opts)]


def _bad_usage(option: str, arguments: Sequence[str]) -> InputError:
    """An option without its value, or a switch with one."""
    field = option.removeprefix("--")
    given = next((text for text in arguments if text.startswith(f"{option}=")), None)
    if given is None:
        return InputError(field, None, "has no value", remedy=f"write {option} VALUE")
    value = given.partition("=")[2]
    return InputError(field, value, "is a value, and this option takes none", remedy=f"write {option} alone")


def _missing(param: Any, command: str) -> InputError:
    field, written = _named(param)
    about = f" ({param.help})" if getattr(param, "help", None) else ""
    return InputError(field, None, "is missing", remedy=f"add {written}{about}; see `{command} --help`")


def _bad_value(error: Any, command: str) -> InputError:
    """A value of the wrong type or out of its range; pydantic found it, and typer passes on only its words."""
    param, find = error.param, getattr(error.__cause__, "errors", None)
    found: dict[str, Any] = find()[0] if find is not None else {}
    value, limits = found.get("input"), found.get("ctx", {})
    field, written = _named(param)
    choices = getattr(getattr(param, "type_descriptor", None), "choices", None)
    if choices:
        problem = f"is not one of {', '.join(str(getattr(choice, 'value', choice)) for choice in choices)}"
        remedy = f"give {written} one of them"
    elif "ge" in limits or "le" in limits:
        bound, words = (limits["ge"], "at least") if "ge" in limits else (limits["le"], "at most")
        value = float(value) if isinstance(value, str) else value
        problem, remedy = f"must be {words} {bound}", f"give {written} {words} {bound}"
    else:
        problem, wanted = _UNREADABLE.get(found.get("type", "").partition("_")[0], (error.message, "another value"))
        remedy = f"give {written} {wanted}"
    source = error.ctx.get_parameter_source(param.name) if error.ctx is not None else None
    if source is not None and source.name == "ENVIRONMENT":
        remedy += f" (it comes from {error.ctx.auto_envvar_prefix}_{param.name.upper()})"
    return InputError(field, value, problem, remedy=f"{remedy}; see `{command} --help`")


def _named(param: Any) -> tuple[str, str]:
    """The field, and how it is written: max-sessions, --max-sessions."""
    if param is None:
        return "argument", "it"
    if param.param_type_name == "argument":
        return param.name, param.name.upper()
    written = max(param.opts, key=len)
    return written.removeprefix("--"), written
