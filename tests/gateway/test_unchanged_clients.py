"""Programs that others wrote for OpenAI's API, pointed at a gateway and otherwise unchanged.

Each is skipped where its package is not installed: together they bring 140 MB, which the environment of the tests does
without. `make test-clients` installs them beside it, as CI does, and skips none.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.foreign_clients import FIELDS, SYSTEM, foreign, langchain_model, litellm_fields, litellm_module
from tests.support.gateways import MODEL, Front, front

#: What these packages warn of is the business of their authors.
pytestmark = pytest.mark.filterwarnings("ignore")

QUESTION, MORE = "a story", "and then?"


async def own_answer(found: Front, *turns: str, **fields: Any) -> tuple[str, int]:
    """The gateway's, asked by hand, and the tokens of its prompt, which tell one conversation from another.

    ``turns``: user and assistant by turns.
    """
    messages = [{"role": "system", "content": SYSTEM}]
    messages += [{"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(turns)]
    body = {"model": MODEL, "messages": messages, **FIELDS, **fields}
    response = await found.post("/v1/chat/completions", **body)
    assert response.status_code == 200, response.text
    body = response.json()
    return body["choices"][0]["message"]["content"], body["usage"]["prompt_tokens"]


# ---- LangChain ------------------------------------------------------------------------------------------------------


def answer_of(message: Any) -> tuple[str, int]:
    """As ``own_answer`` has it."""
    return message.content, message.usage_metadata["input_tokens"]


async def test_langchain_answers_streams_and_remembers():
    async with front() as found:
        model = langchain_model(found)
        first = await model.ainvoke([("system", SYSTEM), ("human", QUESTION)])
        assert answer_of(first) == await own_answer(found, QUESTION)
        assert first.response_metadata["finish_reason"] == "length" and first.usage_metadata["output_tokens"] == 30
        chunks = [chunk async for chunk in model.astream([("system", SYSTEM), ("human", QUESTION)])]
        assert "".join(chunk.content for chunk in chunks) == first.content and len(chunks) > 3
        assert sum(chunk.usage_metadata["output_tokens"] for chunk in chunks if chunk.usage_metadata) == 30
        second = await model.ainvoke([("system", SYSTEM), ("human", QUESTION), first, ("human", MORE)])
        assert answer_of(second) == await own_answer(found, QUESTION, first.content, MORE)


async def test_langchain_passes_the_seed_and_a_batch_on():
    async with front() as found:
        asked = [("system", SYSTEM), ("human", QUESTION)]
        one, other = await langchain_model(found).abatch([asked, [("system", SYSTEM), ("human", MORE)]])
        assert answer_of(one) == await own_answer(found, QUESTION) and answer_of(other) == await own_answer(found, MORE)
        differing = await langchain_model(found, seed=6).ainvoke(asked)
        assert answer_of(differing) == await own_answer(found, QUESTION, seed=6) != answer_of(one)


async def test_langchain_is_told_what_is_wrong():
    async with front() as found:
        with pytest.raises(Exception, match="temperature") as raised:
            await langchain_model(found, temperature=-1.0).ainvoke(QUESTION)
        assert getattr(raised.value, "status_code", None) == 400


# ---- LiteLLM --------------------------------------------------------------------------------------------------------


@pytest.fixture
def litellm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return litellm_module(monkeypatch)


async def test_litellm_answers_streams_and_remembers(litellm: ModuleType):
    async with front() as found:
        fields = litellm_fields(found, QUESTION)
        first = await litellm.acompletion(**fields)
        text = first.choices[0].message.content
        assert (text, first.usage.prompt_tokens) == await own_answer(found, QUESTION)
        assert first.usage.completion_tokens == 30
        stream = await litellm.acompletion(**fields, stream=True, stream_options={"include_usage": True})
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
        assert chunks[-1].usage.completion_tokens == 30
        second = await litellm.acompletion(**litellm_fields(found, QUESTION, text, MORE))
        own = await own_answer(found, QUESTION, text, MORE)
        assert (second.choices[0].message.content, second.usage.prompt_tokens) == own
        other = await litellm.acompletion(**{**fields, "seed": 6})
        assert other.choices[0].message.content == (await own_answer(found, QUESTION, seed=6))[0] != text


async def test_litellm_is_told_what_is_wrong(litellm: ModuleType):
    async with front() as found:
        with pytest.raises(litellm.BadRequestError, match="temperature"):
            await litellm.acompletion(**{**litellm_fields(found, QUESTION), "temperature": -1.0})
        with pytest.raises(litellm.NotFoundError, match="no model"):
            await litellm.acompletion(**{**litellm_fields(found, QUESTION), "model": "openai/another"})


# ---- llm ------------------------------------------------------------------------------------------------------------


async def llm(found: Front, home: Path, *arguments: str) -> tuple[str, int]:
    """What the command prints, as ``own_answer`` has it. ``home``: its folder, which tells it of the gateway."""
    foreign("llm", "llm")
    (home / "extra-openai-models.yaml").write_text(
        f"- model_id: here\n  model_name: {MODEL}\n  api_base: {found.url}/v1\n"
    )
    # Of its plugins only its own: others in the same environment may need what is not there.
    environment = {**os.environ, "LLM_USER_PATH": str(home), "LLM_LOAD_PLUGINS": "", "OPENAI_API_KEY": "none"}
    command = [sys.executable, "-m", "llm", "--usage", *arguments]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, timeout=280
    )
    used = re.search(r"Token usage: ([\d,]+) input", done.stderr)
    assert done.returncode == 0 and used is not None, done.stderr
    return done.stdout.removesuffix("\n"), int(used[1].replace(",", ""))


@pytest.mark.process
@pytest.mark.parametrize("more", [(), ("--no-stream",)], ids=["streamed", "plain"])
async def test_llm_answers_and_goes_on_with_a_conversation(tmp_path: Path, more: tuple[str, ...]):
    options = [*more, *(word for name, value in FIELDS.items() for word in ("-o", name, str(value)))]
    async with front() as found:
        first = await llm(found, tmp_path, "-m", "here", "-s", SYSTEM, *options, QUESTION)
        assert first == await own_answer(found, QUESTION)
        second = await llm(found, tmp_path, "--continue", *options, MORE)
        assert second == await own_answer(found, QUESTION, first[0], MORE)
