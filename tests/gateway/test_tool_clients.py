"""Tools with OpenAI's own clients, and conversations as programs send them that know OpenAI's tools."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import openai
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from tests.support.gateways import front
from tests.support.scripted_engine import scripted
from tests.support.tool_answers import ARGUMENTS, ASKED, CALL, TOOLS, answer


class weather(BaseModel):
    """Of a city."""

    city: Literal["Oslo", "猫"]
    days: Literal[1, 2, 3]


PARSED: Any = [openai.pydantic_function_tool(weather)]


async def test_openais_client_parses_and_streams():
    async with front(scripted(f"Well. {CALL}")) as found:
        chat = found.openai.chat.completions
        plain = await chat.create(**ASKED, tools=TOOLS)
        assert isinstance(plain, ChatCompletion) and plain.choices[0].finish_reason == "tool_calls"
        assert plain.choices[0].message.content == "Well."
        parsed = await chat.parse(**ASKED, tools=PARSED)
        (call,) = parsed.choices[0].message.tool_calls or []
        assert call.function.parsed_arguments == weather(city="猫", days=3)
        async with chat.stream(**ASKED, tools=PARSED) as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_completion()
        (call,) = final.choices[0].message.tool_calls or []
        assert call.function.parsed_arguments == weather(city="猫", days=3) and call.function.arguments == ARGUMENTS
        assert kinds.count("tool_calls.function.arguments.done") == 1
        assert kinds.count("tool_calls.function.arguments.delta") > 3 and "content.done" in kinds
        forced = await chat.parse(**ASKED, tools=PARSED, tool_choice="required", parallel_tool_calls=False)
        assert all(call.function.name == "weather" for call in forced.choices[0].message.tool_calls or [])


async def test_openais_blocking_client():
    async with front(scripted(CALL)) as found:

        def ask() -> list[str]:
            with openai.OpenAI(base_url=f"{found.url}/v1", api_key="none", max_retries=0) as client:
                answered = client.chat.completions.create(**ASKED, tools=TOOLS)
                with client.chat.completions.stream(**ASKED, tools=PARSED) as stream:
                    streamed = stream.get_final_completion()
            messages = (answered.choices[0].message, streamed.choices[0].message)
            return [call.function.arguments for message in messages for call in message.tool_calls or []]

        assert await asyncio.to_thread(ask) == [ARGUMENTS] * 2


async def test_a_conversation_with_calls_and_what_came_of_them():
    """As OpenAI's client and LangChain send it: null for content, calls with ids, and answers of tools."""
    async with front(scripted("fine")) as found:
        calls = [
            {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}},
            {"id": "c2", "type": "function", "function": {"name": "now", "arguments": ""}},
        ]
        messages: list[Any] = [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "hi", "name": "anna"},
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "content": "12 °C", "tool_call_id": "c1", "name": "weather"},
            {"role": "tool", "content": [{"type": "text", "text": "noon"}], "tool_call_id": "c2"},
        ]
        body = await answer(found, messages=messages)
        assert body["choices"][0]["message"]["content"] == "fine"
        assert (await answer(found, messages=messages, tools=None))["choices"][0]["message"]["content"] == "fine"
        fewer = await answer(found, messages=messages[:-1])
        assert fewer["usage"]["prompt_tokens"] < body["usage"]["prompt_tokens"]
        first = await found.openai.chat.completions.create(**ASKED, tools=TOOLS)
        again = [*ASKED["messages"], first.choices[0].message.model_dump(), {"role": "user", "content": "so?"}]
        assert (await answer(found, messages=again))["choices"]
        counted = (await found.post("/tokenize", messages=messages, tools=TOOLS)).json()
        assert counted["count"] == body["usage"]["prompt_tokens"]
