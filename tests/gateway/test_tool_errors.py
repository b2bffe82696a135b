"""What can be wrong with tools: a 400 that names the body's own field."""

from __future__ import annotations

import re
from typing import Any

from speculation.protocol.tools import ToolFormat
from tests.support.gateways import MODEL, STORY, front
from tests.support.scripted_engine import scripted
from tests.support.service_drivers import baseline

ASKED: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
F: dict[str, Any] = {"type": "function", "function": {"name": "f"}}
CALL: dict[str, Any] = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def tool(**fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", **fields}}


def said(role: str = "assistant", **call: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": None, "tool_calls": [{**CALL, **call}]}]}


def nested(depth: int) -> dict[str, Any]:
    return {"x": nested(depth - 1)} if depth else {}


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"tools": "f"}, "tools", "should be a valid list"),
    ({"tools": [5]}, "tools[0]", "should be a valid dictionary"),
    ({"tools": [{"function": {"name": "f"}}]}, "tools[0].type", "is missing"),
    ({"tools": [{"type": "function"}]}, "tools[0].function", "is missing"),
    ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name", "is missing"),
    ({"tools": [F, {"type": "custom", "custom": {"name": "x"}}]}, "tools[1].type", "is not supported"),
    ({"tools": [tool(name="")]}, "tools[0].function.name", "is no name of a function"),
    ({"tools": [tool(name="a b")]}, "tools[0].function.name", "is no name.*1 to 64 of A-Z a-z 0-9 _ -"),
    ({"tools": [tool(name="x" * 65)]}, "tools[0].function.name", "is no name"),
    ({"tools": [tool(name="ä")]}, "tools[0].function.name", "is no name"),
    ({"tools": [tool(name=5)]}, "tools[0].function.name", "should be a valid string"),
    ({"tools": [F, F]}, "tools[1].function.name", "is the name of two tools"),
    ({"tools": [tool(description=5)]}, "tools[0].function.description", "should be a valid string"),
    ({"tools": [tool(parameters="x")]}, "tools[0].function.parameters", "must be an object"),
    ({"tools": [tool(parameters=nested(70))]}, "tools[0].function.parameters", "more than 64 objects and lists"),
    ({"tools": [tool(description="x" * 70000)]}, "tools[0]", "is too large, with 70001 bytes"),
    ({"tools": [tool(strict="yes")]}, "tools[0].function.strict", "should be a valid boolean"),
    ({"tools": [tool(name=f"f{n}") for n in range(129)]}, "tools", "has 129 tools; the limit is 128"),
    ({"tool_choice": "auto"}, "tool_choice", "comes without tools"),
    ({"tool_choice": "required", "tools": []}, "tool_choice", "comes without tools"),
    ({"tool_choice": F}, "tool_choice", "comes without tools"),
    ({"tools": [F], "tool_choice": "any"}, "tool_choice", "is no choice.*none, auto, required or"),
    ({"tools": [F], "tool_choice": 5}, "tool_choice", "must be a string, or"),
    ({"tools": [F], "tool_choice": tool(name="g")}, "tool_choice.function.name", "is none of the tools"),
    ({"tools": [F], "tool_choice": {"type": "function"}}, "tool_choice.function.name", "must be a string"),
    ({"tools": [F], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.type", "is not supported"),
    ({"tools": [F], "parallel_tool_calls": "no"}, "parallel_tool_calls", "should be a valid boolean"),
    ({"tools": [F], "guided_regex": "a"}, "guided_regex", "comes beside tools, and"),
    ({"tools": [F], "tool_choice": "required", "guided_regex": "a"}, "guided_regex", "comes beside tools, and"),
    (
        {"tools": [F], "response_format": {"type": "json_object"}, "guided_regex": "a"},
        "guided_regex",
        "comes beside response_format",
    ),
    ({"tools": [F], "tool_choice": "required", "ignore_eos": True}, "ignore_eos", "cannot go with tool_choice"),
    ({"tools": [F], "tool_choice": "required", "rule": "rejection"}, "rule", "cannot go with tool_choice"),
    (
        {"tools": [tool(parameters={"type": "objec"})], "tool_choice": "required"},
        "tool_choice",
        "'f': has parameters of type 'objec'",
    ),
    (
        {"tools": [tool(name=f"f{n}", description="", parameters={"x": "y" * 9000}) for n in range(8)],
         "tool_choice": "required"},
        "tool_choice",
        "has parameters of .* bytes; the limit is 65536 bytes",
    ),
    (said(function={"name": "f", "arguments": "{"}), "messages[0].tool_calls[0].function.arguments", "is not JSON"),
    (said(function={"name": "f", "arguments": "[]"}), "messages[0].tool_calls[0].function.arguments", "no JSON object"),
    (said(function={"name": "f", "arguments": {}}), "messages[0].tool_calls[0].function.arguments", "valid string"),
    (said(function={"name": 5}), "messages[0].tool_calls[0].function.name", "should be a valid string"),
    (said(type="custom"), "messages[0].tool_calls[0].type", "is not supported"),
    (said(id=5), "messages[0].tool_calls[0].id", "should be a valid string"),
    (said("user"), "messages[0].tool_calls", "come from somebody else than the assistant"),
    ({"messages": [{"role": "tool", "tool_call_id": 5}]}, "messages[0].tool_call_id", "should be a valid string"),
]  # fmt: skip


async def test_mistakes_are_400_and_name_the_bodys_own_field():
    async with front() as found:
        for fields, param, words in BAD:
            response = await found.post("/v1/chat/completions", **{**ASKED, **fields})
            assert response.status_code == 400, (fields, response.text)
            error = response.json()["error"]
            assert error["param"] == param and error["type"] == "invalid_request_error", error
            assert re.search(words, error["message"]) and error["message"].startswith(param), error
            assert len(error["message"]) < 700 and "\n" not in error["message"]
            streamed = await found.post("/v1/chat/completions", **{**ASKED, **fields}, stream=True)
            assert streamed.status_code == 400 and streamed.json()["error"] == error
        await baseline(found.verifier, found.engine)


async def test_lone_surrogates_are_refused():
    async with front() as found:
        for part in ('"description": "\\ud800"', '"parameters": {"\\ud800": 1}'):
            tools = f'[{{"type": "function", "function": {{"name": "f", {part}}}}}]'
            body = f'{{"messages": [{{"role": "user", "content": "x"}}], "tools": {tools}}}'
            headers = {"content-type": "application/json"}
            response = await found.http.post("/v1/chat/completions", content=body, headers=headers)
            assert response.status_code == 400 and response.json()["error"]["param"].startswith("tools[0].function.")


async def test_models_without_tools_and_with_calls_of_an_unknown_kind():
    async with front(scripted("x", None)) as found:
        for choice in ("auto", "required"):
            response = await found.post("/v1/chat/completions", **ASKED, tools=[F], tool_choice=choice)
            assert response.status_code == 400, response.text
            error = response.json()["error"]
            assert "chat template" in error["message"] and error["param"] in ("tools", "tool_choice")
        assert (await found.post("/v1/chat/completions", **ASKED, tools=[F], tool_choice="none")).status_code == 200
    async with front(scripted("x", ToolFormat.TEXT)) as found:
        response = await found.post("/v1/chat/completions", **ASKED, tools=[F], tool_choice="required")
        error = response.json()["error"]
        assert response.status_code == 400 and error["param"] == "tool_choice"
        assert "no way of calling tools that is known here" in error["message"]


async def test_completions_have_no_tools():
    async with front() as found:
        for field, value in (("tools", [F]), ("tool_choice", "auto")):
            response = await found.post("/v1/completions", **STORY, **{field: value})
            assert response.status_code == 400 and response.json()["error"]["param"] == field
        counted = await found.post("/tokenize", prompt="x", tools=[F])
        assert counted.status_code == 400 and counted.json()["error"]["param"] == "tools"
