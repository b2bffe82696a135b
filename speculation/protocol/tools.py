"""Functions that a model may call, and its calls of them, as they travel with a conversation."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from typing import Any, Final

from speculation.errors import InputError
from speculation.protocol.json_depth import check_depth
from speculation.protocol.text_check import check_text

#: Of one conversation, as OpenAI has it.
MAX_TOOLS: Final = 128
#: Bytes of one tool: name, description and parameters.
MAX_TOOL_BYTES: Final = 1 << 16
#: Objects and lists within one another.
MAX_DEPTH: Final = 64


class ToolFormat(enum.StrEnum):
    """How a model writes a call, as its chat template shows it.

    HERMES: ``<tool_call>``, ``{"name": ..., "arguments": {...}}`` and ``</tool_call>`` anywhere in the text.
    LLAMA_JSON: the text is ``{"name": ..., "parameters": {...}}``. TEXT: in a way that is not known here.
    """

    HERMES = "hermes"
    LLAMA_JSON = "llama_json"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Tool:
    """A function. ``parameters``: a JSON schema of an object, as JSON; None: it takes none.

    Raises InputError for an empty name, for parameters that are no JSON object, and for what is too large.
    """

    name: str
    description: str | None = None
    parameters: str | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise InputError("tools.name", self.name, "is empty")
        check_text("tools.name", self.name)
        check_text("tools.description", self.description or "")
        if self.parameters is not None:
            json_object("tools.parameters", self.parameters)
        size = sum(len((text or "").encode()) for text in (self.name, self.description, self.parameters))
        if size > MAX_TOOL_BYTES:
            problem = f"is too large, with {size} bytes; the limit is {MAX_TOOL_BYTES} bytes"
            raise InputError("tools", self.name, problem, remedy="describe less")

    @property
    def schema(self) -> dict[str, Any]:
        """Of its arguments, parsed."""
        return json_object("tools.parameters", self.parameters) if self.parameters is not None else {}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What a model called. ``arguments``: a JSON object, as JSON. Raises InputError if they are none."""

    id: str
    name: str
    arguments: str

    def __post_init__(self) -> None:
        check_text("messages.tool_calls.id", self.id)
        check_text("messages.tool_calls.name", self.name)
        json_object("messages.tool_calls.arguments", self.arguments)

    @property
    def parsed(self) -> dict[str, Any]:
        """The arguments."""
        return json_object("messages.tool_calls.arguments", self.arguments)


def json_object(field: str, text: str) -> dict[str, Any]:
    """Parsed. Raises InputError, which names ``field``, for anything else, and for what no tokenizer takes."""
    check_text(field, text)
    try:
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InputError(field, text, f"is not JSON: {error}", remedy='give an object: {"x": 1}') from error
    if not isinstance(found, dict):
        raise InputError(field, text, "is no JSON object", remedy='give an object: {"x": 1}')
    check_depth(field, found, MAX_DEPTH)
    return found
