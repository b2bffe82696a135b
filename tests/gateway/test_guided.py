"""response_format, structured_outputs and guided_... over real HTTP, with OpenAI's own client too."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import openai
import pytest

from gateway.guides import guide_of
from gateway.requests import CompletionBody
from speculation.errors import InputError
from speculation.protocol.guide_spec import GuideKind
from tests.support.gateways import MODEL, events_of, front
from tests.support.schemas import SCHEMAS
from tests.support.service_drivers import baseline

CALL = SCHEMAS["a call"]
NAMED: dict[str, Any] = {"type": "json_schema", "json_schema": {"name": "call", "strict": True, "schema": CALL}}
ASKED: dict[str, Any] = {"model": MODEL, "prompt": "a story: ", "seed": 9, "temperature": 0.8, "max_tokens": 120}
CHAT: dict[str, Any] = {**ASKED, "messages": [{"role": "user", "content": "a call"}]}
del CHAT["prompt"]


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": NAMED},
        {"structured_outputs": {"json": CALL, "disable_any_whitespace": True}},
        {"structured_outputs": {"json": json.dumps(CALL)}},
        {"guided_json": CALL},
    ],
    ids=lambda fields: next(iter(fields)),
)
async def test_the_ways_to_ask_for_a_schema_are_one(fields: dict[str, Any]):
    async with front() as found:
        response = await found.post("/v1/completions", **ASKED, **fields)
        assert response.status_code == 200, response.text
        body = response.json()
        text = body["choices"][0]["text"]
        jsonschema.validate(json.loads(text), CALL)
        assert body["choices"][0]["finish_reason"] == "stop"
        assert body["speculation"]["grammar"]["accepted_tokens"] > 5
        alone = (await found.post("/v1/completions", **ASKED, **fields, draft=False)).json()
        assert alone["choices"][0]["text"] == text and alone["speculation"]["grammar"]["draft_tokens"] == 0


async def test_chat_with_openais_client_whole_and_streamed():
    async with front() as found:
        answer = await found.openai.chat.completions.create(**CHAT, response_format=NAMED)
        jsonschema.validate(json.loads(answer.choices[0].message.content or ""), CALL)
        stream = await found.openai.chat.completions.create(**CHAT, response_format=NAMED, stream=True)
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        assert "".join(pieces) == answer.choices[0].message.content and len(pieces) > 5
        anything = await found.openai.chat.completions.create(
            **{**CHAT, "max_tokens": 1}, response_format={"type": "json_object"}
        )
        assert anything.choices[0].message.content == "{"
        plain = await found.openai.chat.completions.create(**CHAT, response_format={"type": "text"})
        assert not (plain.choices[0].message.content or "").startswith("{")


async def test_as_many_texts_as_there_are_places_are_held_to_one_schema_at_once():
    """Each is a guide of its own, and what they share is compiled once: nobody is told that too many wait."""
    async with front() as found:
        body = {**ASKED, "n": 64, "temperature": 1.0, "draft": False, "guided_json": {"enum": list(range(10, 30))}}
        response = await found.post("/v1/completions", **body)
        assert response.status_code == 200, response.text
        said = [int(choice["text"]) for choice in response.json()["choices"]]
        assert len(said) == 64 and set(said) <= set(range(10, 30)) and len(set(said)) > 5
        await baseline(found.verifier, found.engine)


@pytest.mark.parametrize(
    "fields, fits",
    [
        ({"structured_outputs": {"regex": "[a-c]{2,5}"}}, "[a-c]{2,5}"),
        ({"guided_regex": "(the )?cat"}, "(the )?cat"),
        ({"structured_outputs": {"choice": ["yes", "no"]}}, "yes|no"),
        ({"guided_choice": ["the cat"]}, "the cat"),
        ({"structured_outputs": {"grammar": 'root ::= "a" | "b"'}}, "a|b"),
        ({"guided_grammar": 'start: "x"'}, "x"),
        ({"structured_outputs": {"json_object": True}}, r"\{.*"),
    ],
)
async def test_other_guides(fields: dict[str, Any], fits: str):
    async with front() as found:
        body = (await found.post("/v1/completions", **ASKED, **fields, n=2)).json()
        assert all(re.fullmatch(fits, choice["text"], re.S) for choice in body["choices"])


@pytest.mark.parametrize(
    "fields, param, words",
    [
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "objec"}}}},
            "response_format.json_schema.schema",
            "cannot be compiled: .*Invalid type: objec",
        ),
        (
            {"guided_json": {"uniqueItems": True}},
            "guided_json",
            'Unimplemented keys.*add "x-guidance": {"lenient": true}',
        ),
        ({"structured_outputs": {"regex": "(a"}}, "structured_outputs.regex", "unclosed group"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json", "is not JSON"),
        ({"structured_outputs": {"json": 5}}, "structured_outputs.json", "must be a JSON schema"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice", "must be a list of strings"),
        ({"guided_choice": "yes"}, "guided_choice", "must be a list of strings"),
        ({"guided_grammar": 5}, "guided_grammar", "must be a string"),
        ({"structured_outputs": {"regex": None}}, "structured_outputs", "asks for nothing"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "must be an object"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
            "is missing",
        ),
        ({"guided_regex": "a", "response_format": NAMED}, "guided_regex", "comes beside response_format"),
        ({"guided_regex": "a" * 70000}, "guided_regex", "is too long"),
        ({"guided_regex": "a", "rule": "rejection"}, "rule", "cannot go with guided_regex.*use race or exact"),
        ({"guided_regex": "a", "ignore_eos": True}, "ignore_eos", "cannot go with guided_regex"),
    ],
)
async def test_mistakes_are_400_and_name_the_bodys_own_field(fields: dict[str, Any], param: str, words: str):
    async with front() as found:
        response = await found.post("/v1/completions", **ASKED, **fields)
        error = response.json()["error"]
        assert response.status_code == 400 and error["param"] == param and error["type"] == "invalid_request_error"
        assert re.search(words, error["message"]) and error["message"].startswith(param)
        streamed = await found.post("/v1/completions", **ASKED, **fields, stream=True)
        assert streamed.status_code == 400 and streamed.json()["error"] == error
        await baseline(found.verifier, found.engine)


async def test_openais_client_gets_a_bad_request():
    async with front() as found:
        with pytest.raises(openai.BadRequestError, match="cannot be compiled"):
            bad: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "objec"}}}
            await found.openai.chat.completions.create(**CHAT, response_format=bad)


async def test_a_stream_of_a_guided_text_ends_in_order():
    async with front() as found:
        response = await found.post("/v1/completions", **ASKED, response_format=NAMED, stream=True)
        *chunks, done = events_of(response.text)
        assert done == "[DONE]" and chunks[-1]["choices"][0]["finish_reason"] == "stop"
        jsonschema.validate(json.loads("".join(chunk["choices"][0]["text"] for chunk in chunks)), CALL)


def test_nothing_is_asked_for_by_what_is_left_out():
    for fields in ({}, {"response_format": None}, {"response_format": {"type": "text"}}, {"guided_json": None}):
        assert guide_of(CompletionBody(prompt="x", **fields)) is None
    spec = guide_of(CompletionBody(prompt="x", structured_outputs={"regex": "a", "json": None}))
    assert spec is not None and spec.kind is GuideKind.REGEX and spec.name == "structured_outputs.regex"
    with pytest.raises(InputError, match="structured_outputs"):
        guide_of(CompletionBody(prompt="x", structured_outputs={"regex": "a", "json": {}}))
