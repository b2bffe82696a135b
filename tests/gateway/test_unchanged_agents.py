"""Tools, structured outputs and drafters, as LangChain and LiteLLM ask for them; see ``test_unchanged_clients``."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict

from tests.support.foreign_clients import langchain_model, litellm_fields, litellm_module
from tests.support.gateways import front
from tests.support.scripted_engine import scripted
from tests.support.service_drivers import drafters, drafting
from tests.support.text_engine import TextDrafter
from tests.support.tool_answers import ARGUMENTS, CALL, TOOLS

pytestmark = pytest.mark.filterwarnings("ignore")

CITY = {"city": "猫", "days": 3}
SEEDS = (5, 6, 7)


class Report(BaseModel):
    """What is said of a place."""

    model_config = ConfigDict(extra="forbid")
    city: Literal["Oslo", "猫"]
    warm: bool


@pytest.fixture
def litellm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return litellm_module(monkeypatch)


async def test_langchain_calls_tools_whole_and_streamed():
    async with front(scripted(f"Well. {CALL}")) as found:
        model = langchain_model(found, max_tokens=200).bind_tools(TOOLS)
        told = await model.ainvoke("how is it?")
        assert told.content == "Well." and told.response_metadata["finish_reason"] == "tool_calls"
        (call,) = told.tool_calls
        assert (call["name"], call["args"]) == ("weather", CITY) and not told.invalid_tool_calls
        whole = None
        async for chunk in model.astream("how is it?"):
            whole = chunk if whole is None else whole + chunk
        assert whole is not None and [(each["name"], each["args"]) for each in whole.tool_calls] == [("weather", CITY)]
        answered = [("human", "how is it?"), told, {"role": "tool", "content": "12", "tool_call_id": call["id"]}]
        assert (await langchain_model(found).ainvoke(answered)).usage_metadata["input_tokens"] > 20


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_langchains_structured_output_is_what_it_asked_for(method: Any):
    async with front() as found:
        for seed in SEEDS:
            asking = langchain_model(found, temperature=1.0, seed=seed, max_tokens=200)
            assert isinstance(await asking.with_structured_output(Report, method=method).ainvoke("a place?"), Report)


async def test_langchain_is_answered_with_the_same_text_with_drafters_and_without():
    async with front() as found:
        models = [langchain_model(found, seed=seed, temperature=0.9, max_tokens=60) for seed in SEEDS]
        alone = [(await model.ainvoke("a story")).content for model in models]
        async with drafting(found.verifier_address, TextDrafter()):
            await drafters(found.verifier, 1)
            assert [(await model.ainvoke("a story")).content for model in models] == alone
        assert len(set(alone)) == len(SEEDS)


async def test_litellm_calls_tools_and_keeps_to_a_schema(litellm: ModuleType):
    async with front(scripted(CALL)) as found:
        fields = {**litellm_fields(found, "how is it?"), "max_tokens": 200}
        told = await litellm.acompletion(**fields, tools=TOOLS)
        (call,) = told.choices[0].message.tool_calls
        assert told.choices[0].finish_reason == "tool_calls"
        assert (call.function.name, call.function.arguments) == ("weather", ARGUMENTS)
        forced = await litellm.acompletion(**fields, tools=TOOLS, tool_choice="required", parallel_tool_calls=False)
        assert len(forced.choices[0].message.tool_calls) == 1
        for seed in SEEDS:
            held = await litellm.acompletion(**{**fields, "seed": seed, "temperature": 1.0}, response_format=Report)
            assert Report.model_validate(json.loads(held.choices[0].message.content))


async def test_litellm_is_answered_with_the_same_text_with_drafters_and_without(litellm: ModuleType):
    async with front() as found:
        asked = [{**litellm_fields(found, "a story"), "seed": seed, "temperature": 0.9} for seed in SEEDS]
        alone = [(await litellm.acompletion(**fields)).choices[0].message.content for fields in asked]
        async with drafting(found.verifier_address, TextDrafter()):
            await drafters(found.verifier, 1)
            drafted = [(await litellm.acompletion(**fields)).choices[0].message.content for fields in asked]
        assert drafted == alone and len(set(alone)) == len(SEEDS)
