"""Tokens of a model, pages for people and collectors, and the command."""

from __future__ import annotations

import asyncio
import json
import signal

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dragoman.processes import child
from tests.support.commands import dragoman
from tests.support.gateways import MODEL, STORY, front
from tests.support.service_drivers import serving
from tests.support.text_engine import TextEngine, TextTokenizer
from tests.support.text_models import TARGET_VOCAB
from transport.version import VERSION

TEXT = "the cat sat, 猫が"
IDS = TextTokenizer().encode(TEXT)


async def test_tokens_as_vllm_tells_them():
    async with front() as found:
        told = (await found.post("/tokenize", model=MODEL, prompt=TEXT)).json()
        assert told == {"count": len(IDS), "max_model_len": 2048, "tokens": IDS, "token_strs": None}
        named = (await found.post("/tokenize", prompt=TEXT, return_token_strs=True)).json()
        assert "".join(named["token_strs"]) == TEXT and len(named["token_strs"]) == len(IDS)
        chat = (await found.post("/tokenize", messages=[{"role": "user", "content": "a"}])).json()
        assert chat["tokens"] == TextTokenizer().encode("user: a\n")
        assert (await found.post("/detokenize", tokens=IDS)).json() == {"prompt": TEXT}
        special = next(iter(TARGET_VOCAB.special))
        assert (await found.post("/detokenize", tokens=[special, *IDS])).json() == {"prompt": f"<pause>{TEXT}"}
        assert (await found.post("/detokenize", tokens=[])).json() == {"prompt": ""}


async def test_tokens_of_a_prompt_without_those_that_the_tokenizer_adds(monkeypatch: pytest.MonkeyPatch):
    """As vLLM's load generator counts them, to make prompts of a length."""
    special = next(iter(TARGET_VOCAB.special))
    monkeypatch.setattr(TextTokenizer, "prompt_ids", lambda self, prompt: [special, *self.encode(prompt.text)])
    async with front() as found:
        assert (await found.post("/tokenize", prompt=TEXT)).json()["tokens"] == [special, *IDS]
        for wanted in (True, False):
            asked = {"prompt": TEXT, "add_special_tokens": wanted, "return_token_strs": True}
            told = (await found.post("/tokenize", **asked)).json()
            assert told["tokens"] == ([special, *IDS] if wanted else IDS)
            assert told["count"] == len(told["tokens"]) == len(told["token_strs"])
        refused = await found.post("/tokenize", prompt=TEXT, chat_template="x")
        assert refused.status_code == 400 and refused.json()["error"]["code"] == "unsupported_parameter"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": [{"role": "user", "content": "a"}]}, "prompt"),
        ("/tokenize", {"prompt": ""}, "prompt"),
        ("/tokenize", {"prompt": 5}, "prompt"),
        ("/detokenize", {"tokens": [10**6]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": "a"}, "tokens"),
    ],
)
async def test_tokens_that_cannot_be_told(path: str, body: dict, param: str):
    async with front() as found:
        response = await found.post(path, **body)
        assert response.status_code == 400 and response.json()["error"]["param"] == param, response.text


async def test_pages():
    async with front() as found:
        assert (await found.http.get("/health")).json() == {"status": "ok"}
        assert (await found.http.get("/version")).json() == {"version": VERSION}
        (model,) = (await found.http.get("/v1/models")).json()["data"]
        assert model["id"] == MODEL and model["max_model_len"] == 2048 and model["object"] == "model"
        assert (await found.http.get(f"/v1/models/{MODEL}")).json() == model
        schema = (await found.http.get("/openapi.json")).json()
        assert {"/v1/completions", "/v1/chat/completions", "/tokenize"} <= schema["paths"].keys()


async def test_what_is_counted():
    async with front() as found:
        whole = await found.complete(max_tokens=10, n=2)
        await found.post("/v1/completions", **{**STORY, "max_tokens": 10, "stream": True})
        await found.http.get("/no/such/page")
        assert await found.metric("requests_total", route="/v1/completions", status="200") == 2
        assert await found.metric("requests_total", route="other", status="404") == 1
        assert await found.metric("generation_tokens_total") == 30
        assert await found.metric("prompt_tokens_total") == 2 * whole["usage"]["prompt_tokens"]
        assert await found.metric("choices_finished_total", reason="length") == 3
        assert await found.metric("time_to_first_token_seconds_count") == 3
        assert await found.metric("time_per_output_token_seconds_count") == 3
        assert await found.metric("e2e_request_latency_seconds_count") == 2
        assert await found.metric("texts_running") == await found.metric("requests_waiting") == 0
        page = (await found.http.get("/metrics")).text
        assert 'vllm:request_params_n_sum{model_name="text-target"} 3.0' in page
        names = {family.name.removesuffix("_created") for family in text_string_to_metric_families(page)}
        assert all(name.startswith("dragoman_gateway_") for name in names - {"vllm:request_params_n"}), (
            "nothing that a verifier tells too"
        )


@pytest.mark.process
async def test_the_command_serves_until_it_is_told_to_stop():
    async with serving(TextEngine(step_seconds=0.01)) as (verifier, at):
        async with child("gateway", ["gateway", f"--verifier={at}", "--listen=127.0.0.1:0"]) as gateway:
            address = (await gateway.ready())["address"]
            async with httpx.AsyncClient(base_url=f"http://{address}", timeout=60, trust_env=False) as http:
                fields = {**STORY, "max_tokens": 100, "stream": True}
                async with http.stream("POST", "/v1/completions", json=fields) as response:
                    lines = response.aiter_lines()
                    assert json.loads((await anext(lines)).removeprefix("data: "))["model"] == MODEL
                    gateway_stops = asyncio.create_task(gateway.stop())
                    rest = [line async for line in lines if line]
                assert rest[-1] == "data: [DONE]", "a text that runs may end"
                await gateway_stops
            assert gateway.exit_code in (0, -signal.SIGTERM)
        taken = await asyncio.to_thread(dragoman, "gateway", f"--verifier={at}", f"--listen={at}")
        assert taken.returncode == 4 and taken.stderr.count("\n") <= 2 and "the port is in use" in taken.stderr
        assert verifier.describe().sessions == 0


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--verifier=127.0.0.1:1", "--coordinator=127.0.0.1:2"), "give one of the two"),
        (("--listen=0.0.0.0:0",), "the connection is not encrypted"),
        (("--max-concurrent=0",), "max-concurrent"),
        (("--grace=long",), "grace"),
    ],
)
def test_what_is_wrong_with_the_command_is_said_in_a_line(arguments: tuple[str, ...], words: str):
    done = dragoman("gateway", *arguments)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
