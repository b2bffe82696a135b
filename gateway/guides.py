"""What a body wants its text to be held to: OpenAI's response_format, vLLM's structured_outputs and older guided_...

One of them at most; but a JSON schema, which is of what the model says, goes with tools that it may call or must.
Raises InputError with the body's own field names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from gateway.requests import ChatBody, TextBody
from gateway.response_requests import ResponsesBody
from gateway.tools import ToolUse, tool_use_of
from speculation.errors import InputError, UnsupportedFieldError
from speculation.protocol.guide_spec import GuideKind, GuideSpec

_Reader = Callable[[Any, str], GuideSpec]


def guide_of(body: TextBody) -> GuideSpec | None:
    """None for a text that is held to nothing."""
    use = tool_use_of(body) if isinstance(body, ChatBody) else ToolUse()
    found = _of_response_format(body.response_format)
    if isinstance(body, ResponsesBody) and body.text is not None:
        found += _of_text_format(body.text.get("format"))
    found += _of_structured_outputs(body.structured_outputs)
    for name, read in _READERS.items():
        if (value := getattr(body, f"guided_{name}")) is not None:
            found.append(read(value, f"guided_{name}"))
    if len(found) > 1:
        raise InputError(found[1].name, None, f"comes beside {found[0].name}", remedy="a text is held to one of them")
    if not found:
        return use.guide
    return _beside_tools(use, found[0]) if use.tools else found[0]


def _beside_tools(use: ToolUse, guide: GuideSpec) -> GuideSpec:
    """The same for a text that may call tools, or must: then nothing is said that a schema could be of."""
    if guide.kind is not GuideKind.JSON_SCHEMA:
        problem = "comes beside tools, and a text that is held to it calls none"
        raise InputError(guide.name, None, problem, remedy='leave it or the tools out, or add tool_choice: "none"')
    if use.guide is not None:
        return use.guide
    names = [tool.name for tool in use.tools]
    return GuideSpec.tool_calls(names, several=use.several, field="tools", answer=guide)


def _of_response_format(given: Mapping[str, Any] | None) -> list[GuideSpec]:
    if given is None:
        return []
    match given.get("type"):
        case "text":
            return []
        case "json_object":
            return [GuideSpec.json_object(field="response_format")]
        case "json_schema":
            return [_of_named_schema(given.get("json_schema"))]
    problem = "is not supported"
    raise UnsupportedFieldError("response_format.type", given.get("type"), problem, remedy="json_schema, json_object")


def _of_named_schema(given: object) -> GuideSpec:
    """Its name and description are for people, and it is kept to whether it says ``strict`` or not."""
    place = "response_format.json_schema"
    if not isinstance(given, Mapping):
        raise InputError(place, given, "must be an object", remedy='{"name": ..., "schema": {...}}')
    if given.get("schema") is None:
        raise InputError(f"{place}.schema", None, "is missing", remedy='{"name": ..., "schema": {...}}')
    return _schema(given["schema"], f"{place}.schema")


def _of_text_format(given: object) -> list[GuideSpec]:
    """Of /v1/responses, where the schema stands beside its name."""
    place = "text.format"
    if given is None:
        return []
    if not isinstance(given, Mapping):
        raise InputError(place, given, "must be an object", remedy='{"type": "json_schema", "schema": {...}}')
    match given.get("type"):
        case "text":
            return []
        case "json_object":
            return [GuideSpec.json_object(field=place)]
        case "json_schema":
            if given.get("schema") is None:
                raise InputError(f"{place}.schema", None, "is missing")
            return [_schema(given["schema"], f"{place}.schema")]
    raise UnsupportedFieldError(
        f"{place}.type", given.get("type"), "is not supported", remedy="text, json_schema, json_object"
    )


def _of_structured_outputs(given: Mapping[str, Any] | None) -> list[GuideSpec]:
    if given is None:
        return []
    found = []
    for name, value in given.items():
        field = f"structured_outputs.{name}"
        if value is None or value is False or name in _WITHOUT_EFFECT:
            continue
        if name == "json_object" and value is True:
            found.append(GuideSpec.json_object(field=field))
        elif name in _READERS:
            found.append(_READERS[name](value, field))
        else:
            raise UnsupportedFieldError(field, value, "is not supported here", remedy="leave it out")
    if not found:
        raise InputError("structured_outputs", given, "asks for nothing", remedy=f"one of {', '.join(_READERS)}")
    return found


def _schema(value: Any, field: str) -> GuideSpec:
    if not isinstance(value, str | bool | Mapping):
        raise InputError(field, value, "must be a JSON schema: an object, or a string with one")
    return GuideSpec.json_schema(value, field=field)


def _regex(value: Any, field: str) -> GuideSpec:
    return GuideSpec.regex(_text(value, field), field=field)


def _grammar(value: Any, field: str) -> GuideSpec:
    return GuideSpec.grammar(_text(value, field), field=field)


def _choice(value: Any, field: str) -> GuideSpec:
    if not (isinstance(value, list) and value and all(isinstance(each, str) for each in value)):
        raise InputError(field, value, "must be a list of strings")
    return GuideSpec.choice(value, field=field)


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise InputError(field, value, "must be a string")
    return value


_READERS: Final[Mapping[str, _Reader]] = {"json": _schema, "regex": _regex, "choice": _choice, "grammar": _grammar}
#: Of vLLM's structured_outputs: no white space is written at will anyhow.
_WITHOUT_EFFECT: Final = frozenset({"disable_any_whitespace", "disable_fallback"})
