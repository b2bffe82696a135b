"""JSON schemas, rewritten before they are compiled (JSON Schema 2020-12)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

#: What stands there is no schema.
_DATA: Final = frozenset(("const", "enum", "default", "examples", "x-guidance"))
#: What stands there are schemas by names, which may be those of keywords.
_BY_NAME: Final = frozenset(("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"))
#: Of strings, as llguidance knows them.
_FORMATS: Final = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", "unknown")
)
_ANY_NAME: Final[tuple[Any, ...]] = ({}, {"type": "string"})


def without_annotations(schema: Any) -> Any:
    """The schema without what restricts nothing and llguidance would refuse: formats that it does not know, which
    are annotations (section 7.2.3; pydantic and OpenAPI write many: password, binary, path, int32), and keywords whose
    value asks for nothing."""
    return _rewritten(schema, _without_annotations)


def moved(schema: Any, place: str) -> Any:
    """A schema that stands at a JSON pointer of another one: what it refers to in itself by a pointer stands there as
    well. It has no ``$id``, which pointers would be counted from."""

    def changed(keywords: dict[str, Any]) -> dict[str, Any]:
        refers = keywords.get("$ref")
        if isinstance(refers, str) and (refers == "#" or refers.startswith("#/")):
            return {**keywords, "$ref": place + refers.removeprefix("#")}
        return keywords

    found = _rewritten(schema, changed)
    return {name: value for name, value in found.items() if name != "$id"} if isinstance(found, dict) else found


def _without_annotations(keywords: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in keywords.items() if not _asks_for_nothing(name, value)}


def _asks_for_nothing(name: str, value: Any) -> bool:
    match name:
        case "format":
            return isinstance(value, str) and value not in _FORMATS
        case "uniqueItems":
            return value is False
        case "propertyNames":
            return value is True or value in _ANY_NAME
    return False


def _rewritten(schema: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """Every schema within it as ``change`` makes it of its keywords, the innermost first."""
    if isinstance(schema, list):
        return [_rewritten(each, change) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return change({name: _value(name, value, change) for name, value in schema.items()})


def _value(name: str, value: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    if name in _DATA:
        return value
    if name in _BY_NAME and isinstance(value, dict):
        return {key: _rewritten(each, change) for key, each in value.items()}
    return _rewritten(value, change)
