"""Answers of a gateway that call tools, asked for and taken apart."""

from __future__ import annotations

import re
from typing import Any

from tests.support.gateways import MODEL, Front, events_of

PLACE: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "猫"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": PLACE}},
    {"type": "function", "function": {"name": "now"}},
]
ASKED: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "how is it?"}], "seed": 5}
NAMED: Any = {"type": "function", "function": {"name": "weather"}}
ARGUMENTS = '{"city": "猫", "days": 3}'
CALL = f'<tool_call>\n{{"name": "weather", "arguments": {ARGUMENTS}}}\n</tool_call>'
NOW = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
ID = "call_[0-9a-f]{24}"


async def answer(found: Front, **fields: Any) -> dict[str, Any]:
    """The whole body."""
    response = await found.post("/v1/chat/completions", **{**ASKED, "tools": TOOLS, **fields})
    assert response.status_code == 200, response.text
    return response.json()


async def chunks_of(found: Front, **fields: Any) -> list[dict[str, Any]]:
    """Of a stream."""
    response = await found.post("/v1/chat/completions", **{**ASKED, "tools": TOOLS, "stream": True, **fields})
    assert response.status_code == 200, response.text
    *chunks, done = events_of(response.text)
    assert done == "[DONE]"
    return chunks


def together(chunks: list[dict[str, Any]], index: int = 0) -> tuple[dict[str, Any], str | None]:
    """A choice of a stream as a whole answer has it, without ids, and its reason to end."""
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
    reason = None
    for choice in (choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index):
        assert reason is None, "something comes after the end"
        reason, delta = choice["finish_reason"], choice["delta"]
        if delta.get("content"):
            message["content"] = (message["content"] or "") + delta["content"]
        for call in delta.get("tool_calls", ()):
            calls = message.setdefault("tool_calls", [])
            if call["index"] == len(calls):
                assert re.fullmatch(ID, call["id"]) and call["type"] == "function" and call["function"]["name"]
                calls.append({"type": "function", "function": dict(call["function"])})
            else:
                assert call["index"] == len(calls) - 1 and set(call) == {"index", "function"}
                assert set(call["function"]) == {"arguments"}
                calls[-1]["function"]["arguments"] += call["function"]["arguments"]
    return message, reason


def without_ids(message: dict[str, Any]) -> dict[str, Any]:
    """A message as ``together`` has it: ids are new each time."""
    if "tool_calls" not in message:
        return message
    calls = [{name: value for name, value in call.items() if name != "id"} for call in message["tool_calls"]]
    return {**message, "tool_calls": calls}


def called(message: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and arguments."""
    return [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls", ())]
