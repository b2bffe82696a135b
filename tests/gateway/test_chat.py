"""/v1/chat/completions over real HTTP, by hand and with OpenAI's own client."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest

from dragoman.client import Client
from dragoman.gateway_backend import VerifierBackend
from speculation.protocol.generation import Chunk
from speculation.protocol.messages import ChatMessage, Prompt
from speculation.sampling.params import SamplingParams
from tests.support.gateways import MODEL, Front, events_of, front
from tests.support.text_engine import TextEngine

MESSAGES = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "a story"}]
CHAT: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "seed": 5, "temperature": 0.5}


async def answer(found: Front, **fields) -> dict:
    response = await found.post("/v1/chat/completions", **{**CHAT, **fields})
    assert response.status_code == 200, response.text
    return response.json()


async def test_an_answer_is_the_verifiers_own_and_goes_as_far_as_it_likes():
    async with front() as found, Client(found.verifier_address) as client:
        prompt = Prompt(messages=tuple(ChatMessage(**message) for message in MESSAGES))
        own = await client.complete(prompt, sampling=SamplingParams(temperature=0.5, seed=5))
        body = await answer(found)
        (choice,) = body["choices"]
        assert choice["message"] == {"role": "assistant", "content": own.text, "refusal": None}
        assert choice["finish_reason"] == "stop" and choice["stop_reason"] == own.stop_reason
        assert body["object"] == "chat.completion" and re.fullmatch("chatcmpl-[0-9a-f]{32}", body["id"])
        assert body["usage"]["completion_tokens"] == own.completion_tokens > 16


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_lengths_by_either_name(field: str):
    async with front() as found:
        body = await answer(found, ignore_eos=True, **{field: 7})
        assert body["usage"]["completion_tokens"] == 7 and body["choices"][0]["finish_reason"] == "length"
        body = await answer(found, ignore_eos=True, max_tokens=9, max_completion_tokens=7)
        assert body["usage"]["completion_tokens"] == 7


async def test_text_parts_are_lines():
    async with front() as found:
        parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
        joined = await answer(found, messages=[{"role": "user", "content": "one\ntwo"}])
        assert (await answer(found, messages=[{"role": "user", "content": parts}]))["choices"] == joined["choices"]


async def test_a_stream_begins_with_the_role_and_ends_with_a_reason_and_the_usage():
    async with front() as found:
        whole = await answer(found, n=2)
        fields = {**CHAT, "n": 2, "stream": True, "stream_options": {"include_usage": True}}
        *chunks, usage, done = events_of((await found.post("/v1/chat/completions", **fields)).text)
        assert done == "[DONE]" and usage["choices"] == [] and usage["usage"] == whole["usage"]
        assert {chunk["object"] for chunk in (*chunks, usage)} == {"chat.completion.chunk"}
        for index, choice in enumerate(whole["choices"]):
            own = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
            assert own[0]["delta"] == {"role": "assistant", "content": ""}
            assert "".join(each["delta"].get("content", "") for each in own) == choice["message"]["content"]
            assert [each["finish_reason"] for each in own[:-1]] == [None] * (len(own) - 1)
            assert own[-1]["finish_reason"] == "stop" and own[-1]["stop_reason"] == choice["stop_reason"]


async def test_choices_are_opened_in_their_order_each_with_its_first_text(monkeypatch: pytest.MonkeyPatch):
    """Whichever verifier is the quickest: openai's helper appends choices as it meets them. And a client that takes the
    first chunk for the first token has it right."""
    second_writes, asked = asyncio.Event(), 0
    write = VerifierBackend.write

    async def held_back(self: VerifierBackend, *args: Any, on_chunk: Callable[[Chunk], None], **kwargs: Any) -> Any:
        nonlocal asked
        first, asked = not asked, asked + 1
        if first:
            await second_writes.wait()

        def seen(chunk: Chunk) -> None:
            on_chunk(chunk)
            if not first:
                second_writes.set()

        return await write(self, *args, on_chunk=seen, **kwargs)

    async with front() as found:
        whole = await answer(found, n=2)
        monkeypatch.setattr(VerifierBackend, "write", held_back)
        async with found.openai.chat.completions.stream(**CHAT, n=2) as stream:
            chunks = [event.chunk async for event in stream if event.type == "chunk"]
            final = await stream.get_final_completion()
        assert [each.message.content for each in final.choices] == [
            each["message"]["content"] for each in whole["choices"]
        ]
        told = [(chunk.choices[0].index, chunk.choices[0].delta) for chunk in chunks]
        assert [(index, delta.role) for index, delta in told[:2]] == [(0, "assistant"), (1, "assistant")]
        assert told[2][0] == 1 and told[2][1].content, "the first chunk comes with the first text"


async def test_openais_client_with_a_prediction():
    async with front() as found:
        plain = await found.openai.chat.completions.create(**CHAT)
        text = plain.choices[0].message.content
        predicted = await found.openai.chat.completions.create(**CHAT, prediction={"type": "content", "content": text})
        assert predicted.choices[0].message.content == text
        assert predicted.usage.completion_tokens_details.accepted_prediction_tokens > 0
        stream = await found.openai.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True})
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
        assert chunks[-1].usage.total_tokens == plain.usage.total_tokens
        assert {chunk.system_fingerprint for chunk in chunks} == {plain.system_fingerprint}


async def test_null_is_left_out():
    async with front() as found:
        nothing = ("max_tokens", "stop", "top_p", "n", "stream", "stream_options", "logit_bias", "tools", "logprobs")
        assert (await answer(found, **dict.fromkeys(nothing)))["choices"] == (await answer(found))["choices"]


async def test_unknown_fields_are_warned_of_once(caplog: pytest.LogCaptureFixture):
    async with front(TextEngine()) as found:
        for _ in range(2):
            await answer(found, frobnicate=1, user="somebody")
        told = [record.getMessage() for record in caplog.records if "has no effect" in record.getMessage()]
        assert len(told) == 1 and "'frobnicate'" in told[0]
