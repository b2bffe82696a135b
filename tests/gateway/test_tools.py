"""tools and tool_choice over real HTTP: whole and streamed, by hand and with OpenAI's own clients."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import jsonschema
import pytest

from dragoman.client import Client
from speculation.protocol.messages import ChatMessage, Prompt
from speculation.protocol.tools import Tool, ToolFormat
from speculation.sampling.params import SamplingParams
from tests.support.gateways import front
from tests.support.scripted_engine import scripted
from tests.support.service_drivers import baseline, drafters, drafting
from tests.support.text_engine import TextDrafter
from tests.support.tool_answers import (
    ARGUMENTS,
    CALL,
    ID,
    NAMED,
    NOW,
    PLACE,
    answer,
    called,
    chunks_of,
    together,
    without_ids,
)

# ---- the model chooses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, content, calls, reason",
    [
        (CALL, None, [("weather", ARGUMENTS)], "tool_calls"),
        (f"Let me see. {CALL}\n{NOW}", "Let me see.", [("weather", ARGUMENTS), ("now", "{}")], "tool_calls"),
        ("It is fine <tool_", "It is fine <tool_", [], "stop"),
        (CALL.replace("weather", "rm"), CALL.replace("weather", "rm"), [], "stop"),
        ("<tool_call>\nnonsense", "<tool_call>\nnonsense", [], "stop"),
    ],
    ids=["a call", "words and calls", "words", "no such tool", "nonsense"],
)
async def test_auto_whole_and_streamed(text: str, content: str | None, calls: list[Any], reason: str):
    async with front(scripted(text)) as found:
        body = await answer(found)
        (choice,) = body["choices"]
        assert choice["message"]["content"] == content and called(choice["message"]) == calls
        assert choice["finish_reason"] == reason
        assert all(re.fullmatch(ID, call["id"]) for call in choice["message"].get("tool_calls", ()))
        chunks = await chunks_of(found, stream_options={"include_usage": True})
        assert together(chunks) == (without_ids(choice["message"]), reason)
        assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert chunks[-1]["usage"] == body["usage"] and not chunks[-1]["choices"]
        await baseline(found.verifier, found.engine)


async def test_arguments_come_in_fragments_after_the_name():
    async with front(scripted(CALL)) as found:
        chunks = await chunks_of(found, draft=False)
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks[1:-1]]
        assert all(set(delta) == {"tool_calls"} for delta in deltas) and len(deltas) > 5


async def test_a_model_that_writes_calls_as_llama_does():
    text = f'{{"name": "weather", "parameters": {ARGUMENTS}}}'
    async with front(scripted(text, ToolFormat.LLAMA_JSON)) as found:
        (choice,) = (await answer(found))["choices"]
        assert called(choice["message"]) == [("weather", ARGUMENTS)] and choice["message"]["content"] is None
        assert together(await chunks_of(found)) == (without_ids(choice["message"]), "tool_calls")


async def test_a_way_of_calling_that_is_not_known_stays_text():
    async with front(scripted(CALL, ToolFormat.TEXT)) as found:
        (choice,) = (await answer(found))["choices"]
        assert choice["message"] == {"role": "assistant", "content": CALL, "refusal": None}
        assert choice["finish_reason"] == "stop"
        assert together(await chunks_of(found)) == (choice["message"], "stop")


async def test_none_tells_the_model_of_no_tools_and_calls_nothing():
    async with front(scripted(CALL)) as found:
        body = await answer(found, tool_choice="none")
        assert body["choices"][0]["message"]["content"] == CALL and body["choices"][0]["finish_reason"] == "stop"
        plain = await answer(found, tools=None)
        assert body["usage"] == plain["usage"] and body["choices"] == plain["choices"]
        assert (await answer(found, tools=[]))["choices"] == plain["choices"]
        assert (await answer(found))["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"]


async def test_one_call_at_a_time():
    async with front(scripted(f"{CALL}\n{NOW}")) as found:
        (choice,) = (await answer(found, parallel_tool_calls=False))["choices"]
        assert called(choice["message"]) == [("weather", ARGUMENTS)] and choice["finish_reason"] == "tool_calls"
        chunks = await chunks_of(found, parallel_tool_calls=False)
        assert together(chunks) == (without_ids(choice["message"]), "tool_calls")


async def test_what_cuts_a_text_leaves_what_is_there():
    async with front(scripted(f"So: {CALL}")) as found:
        seen = set()
        for length in range(1, 75, 3):
            (choice,) = (await answer(found, max_tokens=length))["choices"]
            assert choice["finish_reason"] == "length"
            assert all(ARGUMENTS.startswith(arguments) for _, arguments in called(choice["message"]))
            assert together(await chunks_of(found, max_tokens=length)) == (without_ids(choice["message"]), "length")
            seen.add(bool(called(choice["message"])))
        assert seen == {False, True}
        (choice,) = (await answer(found, stop=["days"]))["choices"]
        assert called(choice["message"]) == [("weather", '{"city": "猫", "')] and choice["stop_reason"] == "days"
        assert choice["finish_reason"] == "tool_calls"
        (choice,) = (await answer(found, stop=["call>"]))["choices"]
        assert choice["message"]["content"] == "So: <tool_" and choice["finish_reason"] == "stop"


async def test_logprobs_and_who_wrote_what_are_of_the_text_as_it_was_written():
    async with front(scripted(f"So {CALL}")) as found:
        (choice,) = (await answer(found, logprobs=True, top_logprobs=1))["choices"]
        written = b"".join(bytes(each["bytes"] or []) for each in choice["logprobs"]["content"])
        assert written.decode() == f"So {CALL}" and called(choice["message"])
        options = {"include_speculation": True}
        chunks = await chunks_of(found, logprobs=True, stream_options=options)
        told = [each for chunk in chunks for each in (chunk["choices"][0]["logprobs"] or {}).get("content", ())]
        assert b"".join(bytes(each["bytes"] or []) for each in told).decode() == f"So {CALL}"
        runs = [run["text"] for chunk in chunks for run in chunk.get("speculation", {}).get("runs", ())]
        assert "".join(runs) == f"So {CALL}"
        assert together(chunks)[0] == without_ids(choice["message"])


# ---- a call is asked for ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
@pytest.mark.parametrize("known", [ToolFormat.HERMES, ToolFormat.LLAMA_JSON])
async def test_calls_that_must_come_are_valid_whole_and_streamed(choice: Any, known: ToolFormat):
    async with front(scripted("no", known)) as found:
        fields = {"tool_choice": choice, "parallel_tool_calls": False, "temperature": 0.9, "n": 4}
        body = await answer(found, **fields)
        chunks = await chunks_of(found, **fields)
        for index, each in enumerate(body["choices"]):
            assert each["message"]["content"] is None and each["finish_reason"] == "tool_calls"
            ((name, arguments),) = called(each["message"])
            assert name == "weather" or choice == "required"
            jsonschema.validate(json.loads(arguments), PLACE if name == "weather" else {"maxProperties": 0})
            assert together(chunks, index) == (without_ids(each["message"]), "tool_calls")
        alone = await answer(found, **fields, draft=False)
        assert [without_ids(each["message"]) for each in alone["choices"]] == [
            without_ids(each["message"]) for each in body["choices"]
        ]
        await baseline(found.verifier, found.engine)


async def test_required_may_be_several():
    async with front(scripted(f"{NOW}\n{CALL}")) as found:
        (choice,) = (await answer(found, tool_choice="required"))["choices"]
        assert called(choice["message"]) == [("now", "{}"), ("weather", ARGUMENTS)]
        (choice,) = (await answer(found, tool_choice="required", parallel_tool_calls=False))["choices"]
        assert called(choice["message"]) == [("now", "{}")]
        (choice,) = (await answer(found, tool_choice=NAMED))["choices"]
        assert [name for name, _ in called(choice["message"])] == ["weather"]


async def test_a_call_that_must_come_and_is_cut_says_nothing_else():
    async with front() as found:
        for length in (1, 20, 60):
            (choice,) = (await answer(found, tool_choice=NAMED, max_tokens=length, draft=False))["choices"]
            assert choice["finish_reason"] == "length" and choice["message"]["content"] is None
            message = without_ids(choice["message"])
            assert together(await chunks_of(found, tool_choice=NAMED, max_tokens=length, draft=False))[0] == message


async def test_a_prediction_is_of_the_text_as_the_model_writes_it():
    async with front(scripted(CALL)) as found:
        body = await answer(found, prediction={"type": "content", "content": CALL})
        assert called(body["choices"][0]["message"]) == [("weather", ARGUMENTS)]
        assert body["usage"]["completion_tokens_details"]["accepted_prediction_tokens"] > 20


@pytest.mark.parametrize("choice", ["auto", "required"])
async def test_the_same_with_drafters_and_without(choice: str):
    async with front() as found:
        fields = {"tool_choice": choice, "temperature": 0.8, "max_tokens": 80}
        alone = [await answer(found, **fields, seed=seed) for seed in range(3)]
        async with drafting(found.verifier_address, TextDrafter()):
            await drafters(found.verifier, 1)
            drafted = await asyncio.gather(*(answer(found, **fields, seed=seed) for seed in range(3)))
        assert any(body["speculation"]["drafters"] for body in drafted)
        for body, other in zip(alone, drafted, strict=True):
            assert without_ids(body["choices"][0]["message"]) == without_ids(other["choices"][0]["message"])


async def test_pythons_own_client_has_tools_too():
    async with front(scripted(CALL)) as found, Client(found.verifier_address) as client:
        prompt = Prompt(messages=(ChatMessage("user", "hi"),), tools=(Tool("weather", None, json.dumps(PLACE)),))
        completion = await client.complete(prompt, sampling=SamplingParams(seed=3))
        assert completion.text == CALL and completion.tool_format is ToolFormat.HERMES
