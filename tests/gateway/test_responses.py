"""/v1/responses over real HTTP, by hand and with OpenAI's own client."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import jsonschema
import openai
import pytest

from gateway.response_requests import ResponsesBody
from gateway.translation import prompt_of_input
from speculation.errors import InputError
from speculation.protocol.messages import ChatMessage, Prompt
from tests.support.gateways import MODEL, Front, front
from tests.support.schemas import SCHEMAS
from tests.support.service_drivers import baseline

ASKED: dict[str, Any] = {"model": MODEL, "input": "a story", "temperature": 0.5}
SEED: dict[str, Any] = {"seed": 5}  # not OpenAI's here, but vLLM's


async def chat(found: Front, messages: list[dict[str, str]], **fields: Any) -> dict[str, Any]:
    response = await found.post(
        "/v1/chat/completions", model=MODEL, messages=messages, temperature=0.5, **SEED, **fields
    )
    assert response.status_code == 200, response.text
    return response.json()


async def test_the_text_is_that_of_the_chat():
    async with front() as found:
        for asked, turns in (
            ({"input": "a story"}, [("user", "a story")]),
            ({"input": "a story", "instructions": "be brief"}, [("system", "be brief"), ("user", "a story")]),
            (
                {
                    "input": [
                        {"role": "developer", "content": "be brief"},
                        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a story"}]},
                        {"role": "assistant", "content": [{"type": "output_text", "text": "no", "annotations": []}]},
                        {"role": "user", "content": "please"},
                    ]
                },
                [("system", "be brief"), ("user", "a story"), ("assistant", "no"), ("user", "please")],
            ),
        ):
            like = await chat(found, [{"role": role, "content": text} for role, text in turns])
            body = await found.openai.responses.create(**{**ASKED, **asked}, extra_body=SEED)
            assert body.output_text == like["choices"][0]["message"]["content"] and body.status == "completed"
            assert body.usage is not None and body.usage.input_tokens == like["usage"]["prompt_tokens"]
            assert body.usage.output_tokens == like["usage"]["completion_tokens"] > 16
            assert body.object == "response" and body.id.startswith("resp-") and body.model == MODEL
        assert body.model_extra is not None and body.model_extra["speculation"]["steps"] > 0


async def test_what_is_cut_is_incomplete():
    async with front() as found:
        body = await found.openai.responses.create(**ASKED, max_output_tokens=7, extra_body=SEED)
        assert body.status == "incomplete" and body.incomplete_details is not None
        assert body.incomplete_details.reason == "max_output_tokens" and body.output[0].status == "incomplete"
        assert body.usage is not None and body.usage.output_tokens == 7


async def test_a_stream_builds_the_same_answer():
    async with front() as found:
        whole = await found.openai.responses.create(**ASKED, extra_body=SEED)
        stream = await found.openai.responses.create(**ASKED, stream=True, extra_body=SEED)
        events = [event async for event in stream]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        names = [event.type for event in events]
        deltas = names.count("response.output_text.delta")
        assert deltas > 1 and names == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            *["response.output_text.delta"] * deltas,
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
        assert "".join(event.delta for event in events if event.type.endswith("text.delta")) == whole.output_text
        assert events[-1].response.output_text == events[-4].text == whole.output_text
        async with found.openai.responses.stream(**ASKED, extra_body=SEED) as managed:  # which builds it itself
            final = await managed.get_final_response()
        assert final.output_text == whole.output_text and final.usage == whole.usage


async def test_a_schema_and_logprobs():
    async with front() as found:
        asked = {
            "text": {"format": {"type": "json_schema", "name": "call", "schema": SCHEMAS["a call"], "strict": True}},
            "include": ["message.output_text.logprobs"],
            "top_logprobs": 2,
        }
        body = await found.openai.responses.create(**ASKED, **asked, extra_body=SEED)
        jsonschema.validate(json.loads(body.output_text), SCHEMAS["a call"])
        (part,) = body.output[0].content
        assert len(part.logprobs) > 5 and all(len(place.top_logprobs) == 2 for place in part.logprobs)
        assert b"".join(bytes(place.bytes) for place in part.logprobs if place.bytes).decode() == body.output_text
        await baseline(found.verifier, found.engine)


async def test_a_client_that_leaves_ends_the_session():
    async with front() as found:
        stream = await found.openai.responses.create(
            **ASKED, stream=True, extra_body={"ignore_eos": True}, max_output_tokens=4000
        )
        async for event in stream:
            if event.type == "response.output_text.delta":
                break
        await stream.close()
        await baseline(found.verifier, found.engine)


@pytest.mark.parametrize(
    "fields, param, words",
    [
        ({"input": None}, "input", "must be a string or a list of items"),
        ({"input": ""}, "input", "is empty"),
        ({"input": []}, "input", "is empty"),
        ({"input": [3]}, "input[0]", "must be an object"),
        ({"input": [{"role": 3, "content": "a"}]}, "input[0].role", "must be a string"),
        ({"input": [{"role": "user", "content": 3}]}, "input[0].content", "list of text parts"),
        ({"input": [{"type": "function_call_output"}]}, "input[0].type", "is not supported"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type", "text parts"),
        ({"max_output_tokens": 0}, "max_output_tokens", "must be at least 1"),
        ({"previous_response_id": "resp-1"}, "previous_response_id", "is not supported"),
        ({"tools": [{"type": "web_search"}]}, "tools", "is not supported"),
        ({"background": True}, "background", "is not supported"),
        ({"n": 2}, "n", "is not supported"),
        ({"top_logprobs": 2}, "top_logprobs", "comes without include"),
        ({"text": {"format": {"type": "yaml"}}}, "text.format.type", "is not supported"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema", "is missing"),
        ({"text": {"format": {"type": "json_schema", "schema": {"type": "x"}}}}, "text.format.schema", "compiled"),
    ],
)
async def test_mistakes_name_the_field(fields: dict[str, Any], param: str, words: str):
    async with front() as found:
        response = await found.post("/v1/responses", **{**ASKED, **fields})
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert error["param"] == param and words in error["message"], error
        await baseline(found.verifier, found.engine)


async def test_an_unknown_model_is_404_and_a_stream_that_breaks_is_an_error():
    async with front() as found:
        with pytest.raises(openai.NotFoundError):
            await found.openai.responses.create(**{**ASKED, "model": "nobody"})
        stream = await found.openai.responses.create(
            **ASKED, stream=True, extra_body={"ignore_eos": True}, max_output_tokens=4000
        )
        with pytest.raises(openai.APIError, match="try again later"):
            async for event in stream:
                if event.type == "response.output_text.delta":
                    stopping = asyncio.create_task(found.server.stop(grace=0.0))
        await stopping


def test_what_a_conversation_is():
    body = ResponsesBody(input="a", instructions="b")
    assert prompt_of_input(body) == Prompt(messages=(ChatMessage("system", "b"), ChatMessage("user", "a")))
    with pytest.raises(InputError, match="has more than 4096 items"):
        prompt_of_input(ResponsesBody(input=[{"role": "user", "content": "a"}] * 4097))
