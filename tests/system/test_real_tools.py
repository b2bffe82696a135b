"""An embedded model calls a tool through real processes and HTTP."""

from __future__ import annotations

import json
import os
from typing import Any

import jsonschema
import openai
import pytest

from dragoman.processes import child

pytestmark = [
    pytest.mark.process,
    pytest.mark.models,
    pytest.mark.slow,
    pytest.mark.skipif(
        "DRAGOMAN_LARGE_MODELS" not in os.environ, reason="takes minutes for its model: DRAGOMAN_LARGE_MODELS=1"
    ),
]

MODEL = "qwen2.5-coder-1.5b"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "unit": {"enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
WEATHER: Any = {
    "type": "function",
    "function": {"name": "get_weather", "description": "of a city", "parameters": SCHEMA},
}


@pytest.mark.timeout(900)  # the first use of a model converts it
async def test_a_named_tool_is_called_with_what_was_asked_for():
    options = [f"--model={MODEL}", "--listen=127.0.0.1:0"]
    async with child("verifier", ["verifier", *options]) as verifier:
        address = (await verifier.ready(limit=600))["address"]
        async with child("gateway", ["gateway", f"--verifier={address}", "--listen=127.0.0.1:0"]) as gateway:
            url = f"http://{(await gateway.ready())['address']}/v1"
            async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=300) as client:
                answer = await client.chat.completions.create(
                    model=MODEL,
                    messages=[{"role": "user", "content": "How warm is it in Paris, in celsius?"}],
                    tools=[WEATHER],
                    tool_choice={"type": "function", "function": {"name": "get_weather"}},
                    temperature=0,
                    max_tokens=48,
                )
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    (call,) = choice.message.tool_calls or []
    assert isinstance(call, openai.types.chat.ChatCompletionMessageFunctionToolCall)
    arguments = json.loads(call.function.arguments)
    jsonschema.validate(arguments, SCHEMA)
    assert call.function.name == "get_weather" and arguments == {"city": "Paris", "unit": "celsius"}
