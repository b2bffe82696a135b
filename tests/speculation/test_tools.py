"""Tools and calls as values: what is none, and where limits lie."""

from __future__ import annotations

import pytest

from speculation.errors import InputError
from speculation.protocol.messages import ChatMessage, Prompt
from speculation.protocol.tools import MAX_DEPTH, MAX_TOOL_BYTES, MAX_TOOLS, Tool, ToolCall

CALL = ToolCall("c", "f", '{"x": 1}')
USER = ChatMessage("user", "hi")


def test_values_that_are_none():
    for make, words in (
        (lambda: Tool(""), "tools.name"),
        (lambda: Tool("f", "x\ud800"), "tools.description.*UTF-8"),
        (lambda: Tool("f", None, "[]"), "tools.parameters.*no JSON object"),
        (lambda: ToolCall("c", "f", "x"), "messages.tool_calls.arguments.*is not JSON"),
        (lambda: ToolCall("c", "f", '{"x": "\\ud800"}'), "messages.tool_calls.arguments"),
        (lambda: Prompt(text="x", tools=(Tool("weather"),)), "tools.*messages only"),
        (lambda: Prompt(messages=(USER,), tools=(Tool("weather"),) * 2), "tools.name='weather'.*two tools"),
        (lambda: Prompt(messages=(USER,), tools=tuple(Tool(f"f{n}") for n in range(129))), "limit is 128"),
        (lambda: Prompt(messages=(ChatMessage("user", "", (CALL,)),)), "else than the assistant"),
    ):
        with pytest.raises(InputError, match=words):
            make()


def nested(depth: int) -> str:
    return '{"x": ' * depth + "1" + "}" * depth


def test_limits():
    assert Tool("f", "x" * (MAX_TOOL_BYTES - 3), "{}") and Tool("f", None, nested(MAX_DEPTH)).schema
    with pytest.raises(InputError, match=f"too large, with {MAX_TOOL_BYTES + 1} bytes; the limit is {MAX_TOOL_BYTES}"):
        Tool("f", "x" * (MAX_TOOL_BYTES - 2), "{}")
    with pytest.raises(InputError, match=f"more than {MAX_DEPTH} objects and lists"):
        Tool("f", None, nested(MAX_DEPTH + 1))
    with pytest.raises(InputError, match="more than"):
        ToolCall("c", "f", '{"x": ' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}")
    assert len(Prompt(messages=(USER,), tools=tuple(Tool(f"f{n}") for n in range(MAX_TOOLS))).tools) == MAX_TOOLS


def test_who_uses_tools():
    assert CALL.parsed == {"x": 1} and Tool("f").schema == {} and Tool("f", None, '{"a": 2}').schema == {"a": 2}
    assert not Prompt(text="x").uses_tools and not Prompt(messages=(USER,)).uses_tools
    for messages, tools in (
        ((USER,), (Tool("f"),)),
        ((ChatMessage("assistant", "", tool_calls=(CALL,)),), ()),
        ((ChatMessage("tool", "x", tool_call_id="c"),), ()),
    ):
        assert Prompt(messages=messages, tools=tools).uses_tools
