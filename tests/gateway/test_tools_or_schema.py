"""tools beside a JSON schema of what is said, as agents send them: the model calls, or answers as the schema has it."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import jsonschema
import openai
import pytest
from pydantic import BaseModel

from speculation.protocol.guide_spec import MAX_SCHEMA_DEPTH
from speculation.protocol.tools import MAX_DEPTH, ToolFormat
from tests.support.gateways import front
from tests.support.scripted_engine import scripted
from tests.support.service_drivers import baseline, drafters, drafting
from tests.support.text_engine import TextDrafter
from tests.support.tool_answers import (
    ARGUMENTS,
    ASKED,
    CALL,
    NAMED,
    PLACE,
    answer,
    called,
    chunks_of,
    together,
    without_ids,
)

#: What it allows may begin as a call of Llama does, and refers to a part of itself.
REPORT: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"$ref": "#/$defs/who"}, "parameters": {"type": "integer"}},
    "required": ["name", "parameters"],
    "additionalProperties": False,
    "$defs": {"who": {"enum": ["weather", "heron"]}},
}
FORMAT: dict[str, Any] = {"type": "json_schema", "json_schema": {"name": "report", "schema": REPORT}}
#: A tool that cannot be compiled.
ODD: dict[str, Any] = {"type": "function", "function": {"name": "odd", "parameters": {"uniqueItems": True}}}


def nested(depth: int) -> str:
    """A schema of lists in lists, as a string, which no check of a body looks into."""
    return '{"items": ' * depth + "{}" + "}" * depth


LLAMA_CALL = f'{{"name": "weather", "parameters": {ARGUMENTS}}}'


@pytest.mark.parametrize(
    ("text", "known", "content"),
    [
        (CALL, ToolFormat.HERMES, None),
        (f"{CALL}\n{CALL}", ToolFormat.HERMES, None),
        ('{"name": "heron", "parameters": 3}', ToolFormat.HERMES, '{"name": "heron", "parameters": 3}'),
        (LLAMA_CALL, ToolFormat.LLAMA_JSON, None),
        ('{"name": "heron", "parameters": 3}', ToolFormat.LLAMA_JSON, '{"name": "heron", "parameters": 3}'),
        ('{"name": "weather", "parameters": 3}', ToolFormat.LLAMA_JSON, '{"name": "weather", "parameters": 3}'),
    ],
    ids=["a call", "calls", "an answer", "a bare call", "a bare answer", "an answer that begins as a call"],
)
async def test_the_model_chooses_whole_and_streamed(text: str, known: ToolFormat, content: str | None):
    async with front(scripted(text, known)) as found:
        (choice,) = (await answer(found, response_format=FORMAT))["choices"]
        assert choice["message"]["content"] == content
        assert called(choice["message"]) == ([] if content else [("weather", ARGUMENTS)] * text.count("name"))
        reason = "stop" if content else "tool_calls"
        assert choice["finish_reason"] == reason
        assert together(await chunks_of(found, response_format=FORMAT)) == (without_ids(choice["message"]), reason)
        await baseline(found.verifier, found.engine)


@pytest.mark.parametrize("known", [ToolFormat.HERMES, ToolFormat.LLAMA_JSON])
async def test_what_babbles_is_one_or_the_other_with_drafters_and_without(known: ToolFormat):
    """A model that says anything: half of what would fit neither is what these guides are for."""
    async with front(scripted("no", known)) as found, drafting(found.verifier_address, TextDrafter()):
        await drafters(found.verifier, 1)
        fields: Any = {"response_format": FORMAT, "temperature": 1.0, "n": 16, "max_tokens": 200}
        body, alone = [await answer(found, **fields, draft=draft) for draft in (True, False)]
        messages = [without_ids(choice["message"]) for choice in body["choices"]]
        assert messages == [without_ids(choice["message"]) for choice in alone["choices"]]
        calls = [call for message in messages for call in called(message)]
        answers = [message["content"] for message in messages if message["content"] is not None]
        assert calls and answers and all(called(message) or message["content"] for message in messages)
        for name, arguments in calls:
            jsonschema.validate(json.loads(arguments), PLACE if name == "weather" else {"maxProperties": 0})
        for said in answers:
            jsonschema.validate(json.loads(said), REPORT)
        await baseline(found.verifier, found.engine)


@pytest.mark.parametrize("known", [ToolFormat.HERMES, ToolFormat.LLAMA_JSON])
async def test_whatever_an_answer_says_is_streamed_whole(known: ToolFormat):
    """Signs that calls begin with may stand anywhere in it, and at the beginning of a piece."""
    said = json.dumps({"html": "<b>hi</b> <tool_call> {a <b", "n": ["<", "<tool_call>"]})
    async with front(scripted(said, known)) as found:
        fields: Any = {"response_format": {"type": "json_object"}, "draft": False}
        (choice,) = (await answer(found, **fields))["choices"]
        assert choice["message"]["content"] == said and not called(choice["message"])
        chunks = await chunks_of(found, **fields)
        assert together(chunks) == (choice["message"], "stop")


async def test_where_calls_are_bare_json_the_schemas_ask_for_the_same_as_apart():
    """What tells llguidance how to read a schema, names of its parts, and places within it."""
    parts = {"$defs": {"n": {"$anchor": "number", "type": "integer", "minimum": 1, "maximum": 3}}, "type": "object"}
    strict = {"properties": {"n": {"$ref": "#/$defs/n"}}, "required": ["n"], "additionalProperties": False}
    tool = {"name": "f", "parameters": {"$id": "https://example.com/f", **parts, **strict}}
    lenient = {"x-guidance": {"lenient": True}, "$id": "https://example.com/g", "minProperties": 0, "not": {"const": 5}}
    async with front(scripted("no", ToolFormat.LLAMA_JSON)) as found:
        fields: Any = {"tools": [{"type": "function", "function": tool}], "n": 12, "temperature": 1.0}
        body = await answer(found, **fields, guided_json={**lenient, **parts, **strict}, max_tokens=100)
        calls = [call for choice in body["choices"] for call in called(choice["message"])]
        answers = [choice["message"]["content"] for choice in body["choices"] if choice["message"]["content"]]
        assert calls and answers
        assert all(json.loads(said)["n"] in (1, 2, 3) for said in [*answers, *(arguments for _, arguments in calls)])


@pytest.mark.parametrize("length", [3, 12, 40, 60])
async def test_a_call_that_is_cut_says_nothing_else(length: int):
    """Of two calls, so that one is there when the other is cut."""
    async with front(scripted(f"{CALL}\n{CALL}")) as found:
        fields: Any = {"response_format": FORMAT, "max_tokens": length, "draft": False}
        (choice,) = (await answer(found, **fields))["choices"]
        assert choice["message"]["content"] is None and choice["finish_reason"] == "length"
        assert together(await chunks_of(found, **fields)) == (without_ids(choice["message"]), "length")


@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
async def test_where_a_call_must_come_there_is_nothing_that_a_schema_could_be_of(choice: Any):
    async with front(scripted('{"name": "heron"}')) as found:
        fields: Any = {"tool_choice": choice, "parallel_tool_calls": False}
        (held,) = (await answer(found, **fields, response_format=FORMAT))["choices"]
        (free,) = (await answer(found, **fields))["choices"]
        assert called(held["message"]) and without_ids(held["message"]) == without_ids(free["message"])


async def test_where_none_may_come_the_schema_is_all():
    async with front(scripted(CALL)) as found:
        (choice,) = (await answer(found, tool_choice="none", response_format=FORMAT))["choices"]
        jsonschema.validate(json.loads(choice["message"]["content"]), REPORT)


async def test_schemas_may_be_as_deep_as_the_limit():
    ours = {**NAMED, "function": {"name": "weather", "parameters": json.loads(nested(MAX_DEPTH - 1))}}
    for known in (ToolFormat.HERMES, ToolFormat.LLAMA_JSON):
        async with front(scripted("{}", known)) as found:
            asked = {**ASKED, "tools": [ours], "guided_json": nested(MAX_SCHEMA_DEPTH - 1)}
            got = await found.post("/v1/chat/completions", **asked)
            assert got.status_code == 200, got.text


@pytest.mark.parametrize(
    ("fields", "known", "param", "words"),
    [
        ({"response_format": FORMAT}, ToolFormat.TEXT, "tools", "no way of calling"),
        (
            {"response_format": FORMAT, "ignore_eos": True},
            ToolFormat.HERMES,
            "ignore_eos",
            "cannot go with response_for",
        ),
        (
            {"guided_json": nested(MAX_SCHEMA_DEPTH)},
            ToolFormat.HERMES,
            "guided_json",
            "objects and lists within one another",
        ),
        ({"guided_json": nested(90_000)}, ToolFormat.HERMES, "guided_json", "is too long"),
        ({"guided_json": {}, "tools": [ODD]}, ToolFormat.HERMES, "tools", "cannot be held to its parameters"),
        ({"guided_json": {}, "tools": [ODD]}, ToolFormat.LLAMA_JSON, "tools", "cannot be held to its parameters"),
        ({"guided_json": {"uniqueItems": True}}, ToolFormat.HERMES, "guided_json", "cannot be compiled"),
        ({"guided_json": {"uniqueItems": True}}, ToolFormat.LLAMA_JSON, "guided_json", "cannot be compiled"),
        ({"guided_json": False}, ToolFormat.HERMES, "guided_json", "nothing fits it"),
        ({"guided_json": False}, ToolFormat.LLAMA_JSON, "guided_json", "nothing fits it"),
    ],
)
async def test_what_cannot_be_had_names_its_field(fields: Any, known: ToolFormat, param: str, words: str):
    async with front(scripted(CALL, known)) as found:
        response = await found.post("/v1/chat/completions", **{**ASKED, "tools": [NAMED], **fields})
        error = response.json()["error"]
        assert response.status_code == 400 and error["param"] == param and words in error["message"]


class Report(BaseModel):
    """An answer."""

    name: Literal["heron"]


async def test_openais_client_parses_either():
    for text, expected in ((CALL, None), ('{"name": "heron"}', Report(name="heron"))):
        async with front(scripted(text)) as found:

            class weather(BaseModel):
                """Of a city."""

                city: Literal["Oslo", "猫"]
                days: Literal[1, 2, 3]

            tools: Any = [openai.pydantic_function_tool(weather)]
            parsed = await found.openai.chat.completions.parse(**ASKED, tools=tools, response_format=Report)
            message = parsed.choices[0].message
            assert message.parsed == expected
            assert [call.function.parsed_arguments for call in message.tool_calls or []] == (
                [] if expected else [weather(city="猫", days=3)]
            )


async def test_texts_side_by_side_do_not_share_their_choice():
    async with front(scripted(CALL)) as found:
        asked = [
            answer(found, response_format=FORMAT),
            answer(found),
            answer(found, response_format=FORMAT, tools=None),
        ]
        either, free, held = [body["choices"][0]["message"] for body in await asyncio.gather(*asked)]
        assert without_ids(either) == without_ids(free) and called(either)
        jsonschema.validate(json.loads(held["content"]), REPORT)
