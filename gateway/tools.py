"""What a body of /v1/chat/completions says of tools: which there are, whether one must be called, which were called.

Raises InputError with the body's own field names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.json_text import json_text
from gateway.requests import CallBody, ChatBody, Message, ToolBody
from speculation.errors import InputError, UnsupportedFieldError
from speculation.protocol.guide_spec import GuideSpec
from speculation.protocol.tools import Tool, ToolCall

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CHOICES: Final = 'none, auto, required or {"type": "function", "function": {"name": ...}}'


@dataclass(frozen=True, slots=True)
class ToolUse:
    """``tools``: that the model is told of. ``guide``: the text must be calls; None: the model chooses.

    ``several``: more than one call is told.
    """

    tools: tuple[Tool, ...] = ()
    guide: GuideSpec | None = None
    several: bool = True

    @property
    def names(self) -> frozenset[str]:
        """Of the functions."""
        return frozenset(tool.name for tool in self.tools)


def tool_use_of(body: ChatBody) -> ToolUse:
    """Without ``tools``, or where none may be called, the model is told of none."""
    tools = tools_of(body.tools)
    choice = body.tool_choice
    if choice is None or choice == "none":
        return ToolUse() if choice == "none" else ToolUse(tools, several=body.parallel_tool_calls is not False)
    if not tools:
        raise InputError("tool_choice", choice, "comes without tools", remedy="add them, or leave it out")
    several = body.parallel_tool_calls is not False
    match choice:
        case "auto":
            return ToolUse(tools, several=several)
        case "required":
            names = [tool.name for tool in tools]
            return ToolUse(tools, GuideSpec.tool_calls(names, several=several, field="tool_choice"), several)
        case str():
            raise InputError("tool_choice", choice, "is no choice", remedy=_CHOICES)
    name = _named(choice)
    if name not in {tool.name for tool in tools}:
        raise InputError("tool_choice.function.name", name, "is none of the tools", remedy="name one of them")
    return ToolUse(tools, GuideSpec.tool_calls([name], several=False, field="tool_choice"), several=False)


def _named(choice: Mapping[str, Any]) -> str:
    if choice.get("type") != "function":
        raise UnsupportedFieldError("tool_choice.type", choice.get("type"), "is not supported", remedy="function")
    function = choice.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise InputError("tool_choice.function.name", name, "must be a string", remedy=_CHOICES)
    return name


def tools_of(bodies: Sequence[ToolBody] | None) -> tuple[Tool, ...]:
    """As models are told of them."""
    tools: dict[str, Tool] = {}
    for index, body in enumerate(bodies or ()):
        place = f"tools[{index}]"
        if body.type != "function":
            raise UnsupportedFieldError(f"{place}.type", body.type, "is not supported", remedy="function")
        if (function := body.function) is None:
            raise InputError(f"{place}.function", None, "is missing")
        if not _NAME.fullmatch(function.name):
            problem = "is no name of a function"
            raise InputError(f"{place}.function.name", function.name, problem, remedy="1 to 64 of A-Z a-z 0-9 _ -")
        if function.name in tools:
            raise InputError(f"{place}.function.name", function.name, "is the name of two tools", remedy="rename one")
        try:
            tools[function.name] = Tool(function.name, function.description, _written(function.parameters))
        except InputError as error:
            raise _at(error, place + error.field.removeprefix("tools").replace(".", ".function.", 1)) from error
    return tuple(tools.values())


def calls_of(message: Message, place: str) -> tuple[ToolCall, ...]:
    """Of an assistant's message. ``place``: of the message."""
    return tuple(_call(call, f"{place}.tool_calls[{index}]") for index, call in enumerate(message.tool_calls or ()))


def _call(call: CallBody, place: str) -> ToolCall:
    if call.type not in (None, "function"):
        raise UnsupportedFieldError(f"{place}.type", call.type, "is not supported", remedy="function")
    try:
        return ToolCall(call.id or "", call.function.name, call.function.arguments or "{}")
    except InputError as error:
        part = error.field.removeprefix("messages.tool_calls.")
        raise _at(error, f"{place}.{part if part == 'id' else f'function.{part}'}") from error


def _at(error: InputError, field: str) -> InputError:
    return InputError(field, error.value, error.problem, remedy=error.remedy)


def _written(parameters: Mapping[str, Any] | None) -> str | None:
    return None if parameters is None else json_text("tools.parameters", parameters)
