"""Log-probabilities through a verifier: the model's own, of every token, the same with a drafter and without."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from drafter_service.model_drafter import ModelDrafter
from dragoman.client import Client
from dragoman.transcript import Transcript
from engine.paged_engine import PagedEngine
from speculation.errors import ProtocolError
from speculation.protocol.generation import GenerationRequest, Started
from speculation.protocol.guide_spec import GuideSpec
from speculation.protocol.logprobs import TokenLogprobs
from speculation.protocol.messages import Prompt
from speculation.sampling.params import SamplingParams
from tests.support.gateways import STORY, events_of, front
from tests.support.service_drivers import WARM, drafters, drafting, serving, text_of
from tests.support.text_engine import TextEngine
from tests.support.text_models import TARGET_VOCAB
from tests.support.tiny_models import load_tiny
from transport.generation_codec import request_to_wire
from verifier_service.engine import Engine
from verifier_service.transformers_engine import TransformersEngine

PENALISED = SamplingParams(temperature=0.7, top_p=0.9, frequency_penalty=0.5, seed=4)


def values(places: list[TokenLogprobs]) -> list[float]:
    return [value for place in places for value in (place.chosen.logprob, *(each.logprob for each in place.top))]


@pytest.mark.parametrize("kind", ["one by one", "all rows at once"])
async def test_they_are_those_of_transformers_own_forward_pass(kind: str, tiny_qwen2: Path, tiny_llama: Path):
    """Whatever settings drew the tokens, whoever drafted them, and with a guide as well."""
    engine: Engine = TransformersEngine(load_tiny(tiny_qwen2))
    if kind != "one by one":
        engine = made = PagedEngine(load_tiny(tiny_qwen2), kv_bytes=4 << 20, rows=16)
        made.draws_all_rows = True
    reference = AutoModelForCausalLM.from_pretrained(tiny_qwen2, dtype=torch.float32).eval()
    async with (
        serving(engine) as (verifier, address),
        drafting(address, ModelDrafter(load_tiny(tiny_llama))),
        Client(address) as client,
    ):
        await drafters(verifier, 1)
        prompt = list(await client.tokenize("def add"))
        for guide in (None, GuideSpec.regex("[a-f ]{12,24}")):
            alone, drafted = [
                await client.complete(
                    "def add", sampling=PENALISED, max_tokens=40, logprobs=4, draft=draft, guide=guide
                )
                for draft in (False, True)
            ]
            assert drafted.token_ids == alone.token_ids and len(alone.logprobs) == len(alone.token_ids) > 8
            assert values(drafted.logprobs) == pytest.approx(values(alone.logprobs), abs=1e-4)
            with torch.inference_mode():
                rows = reference(torch.tensor([[*prompt, *alone.token_ids]])).logits[0, len(prompt) - 1 : -1]
            expected = rows.float().log_softmax(-1)
            for place, row, token in zip(alone.logprobs, expected, alone.token_ids, strict=True):
                assert place.chosen.token == token
                assert place.chosen.logprob == pytest.approx(float(row[token]), abs=1e-4)
                assert [each.logprob for each in place.top] == pytest.approx(row.topk(4).values.tolist(), abs=1e-4)
                assert place.chosen.piece.text == engine.tokenizer.vocab.bytes_of(token)


async def test_who_does_not_ask_is_told_nothing_and_a_resumed_text_tells_each_once():
    request = GenerationRequest(Prompt(text="a story: "), sampling=WARM, max_tokens=30, logprobs=2)
    async with serving(TextEngine()) as (_, address), Client(address) as client:
        assert (await client.write(dataclasses.replace(request, logprobs=None))).logprobs == []
        whole = await client.write(request)
        assert [place.chosen.token for place in whole.logprobs] == whole.token_ids
        assert all(len(place.top) == 2 for place in whole.logprobs)
        assert all(
            len(place.top) == 0 for place in (await client.write(dataclasses.replace(request, logprobs=0))).logprobs
        )
        wire = request_to_wire(dataclasses.replace(request, received=whole.data[:9]))
        rest, _ = await text_of(address, wire)
        assert whole.data[:9] + rest == whole.data


def test_a_verifier_that_is_too_old_is_left():
    request = GenerationRequest(Prompt(text="x"), logprobs=0)
    with pytest.raises(ProtocolError, match="too old to tell logprobs"):
        Transcript(request, lambda chunk: None).take(Started("s", 1))
    Transcript(request, lambda chunk: None).take(Started("s", 1, logprobs=True))


async def test_completions_over_http_whole_and_streamed():
    async with front() as found:
        body = await found.complete(max_tokens=24, logprobs=2)
        [choice] = body["choices"]
        told = choice["logprobs"]
        assert len(told["tokens"]) == len(told["token_logprobs"]) == len(told["top_logprobs"]) == 24
        assert all(2 <= len(each) <= 3 for each in told["top_logprobs"])
        assert all(token in top for token, top in zip(told["tokens"], told["top_logprobs"], strict=True))
        assert told["text_offset"][0] == 0 and told["text_offset"] == sorted(told["text_offset"])
        for token, start in zip(told["tokens"], told["text_offset"], strict=True):
            if "\ufffd" not in token and token not in TARGET_VOCAB.special.values():
                assert choice["text"].startswith(token, start)
        assert (await found.complete(max_tokens=4))["choices"][0]["logprobs"] is None
        response = await found.post("/v1/completions", **{**STORY, "max_tokens": 24, "logprobs": 2, "stream": True})
        chunks = events_of(response.text)[:-1]
        pieces = [chunk["choices"][0]["logprobs"] for chunk in chunks if chunk["choices"][0]["logprobs"]]
        assert {name: [each for piece in pieces for each in piece[name]] for name in told} == told
        response = await found.post("/v1/completions", **{**STORY, "logprobs": 2, "echo": True})
        assert response.status_code == 400 and "echo" in response.json()["error"]["message"]


async def test_chat_over_http_with_openais_client():
    chat = {"model": STORY["model"], "messages": [{"role": "user", "content": "x"}], "seed": 3, "max_tokens": 20}
    async with front() as found:
        answer = await found.openai.chat.completions.create(**chat, logprobs=True, top_logprobs=3)
        told = answer.choices[0].logprobs
        assert told is not None and told.content is not None and len(told.content) == 20
        text = b"".join(bytes(place.bytes or ()) for place in told.content).decode(errors="replace")
        assert text == answer.choices[0].message.content
        assert all(len(place.top_logprobs) == 3 and place.logprob <= 0 for place in told.content)
        stream = await found.openai.chat.completions.create(**chat, logprobs=True, top_logprobs=3, stream=True)
        streamed = [chunk.choices[0].logprobs async for chunk in stream]
        assert [place for each in streamed if each for place in each.content or ()] == told.content
        for fields in ({"top_logprobs": 3}, {"logprobs": True, "top_logprobs": 21}):
            response = await found.post("/v1/chat/completions", **chat, **fields)
            assert response.status_code == 400 and response.json()["error"]["param"] == "top_logprobs"
