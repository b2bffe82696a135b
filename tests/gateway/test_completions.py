"""/v1/completions over real HTTP: the texts of the verifier, whole and streamed, with OpenAI's own client too."""

from __future__ import annotations

import asyncio

import openai

from dragoman.client import Client
from speculation.sampling.params import SamplingParams
from tests.support.gateways import MODEL, STORY, events_of, front
from tests.support.service_drivers import WAITING, baseline, drafters, drafting
from tests.support.text_engine import TextTokenizer
from tests.support.text_models import TARGET_VOCAB

PROMPT = STORY["prompt"]


async def test_a_text_is_the_verifiers_own():
    async with front() as found, Client(found.verifier_address) as client:
        sampling = SamplingParams(temperature=0.8, seed=9, top_p=0.9)
        own = await client.complete(PROMPT, sampling=sampling, max_tokens=40, ignore_end=True)
        body = await found.complete(max_tokens=40, top_p=0.9)
        (choice,) = body["choices"]
        assert choice["text"] == own.text and choice["finish_reason"] == "length" and choice["stop_reason"] is None
        assert body["object"] == "text_completion" and body["id"].startswith("cmpl-") and body["model"] == MODEL
        assert body["system_fingerprint"].startswith("fp_")
        assert body["usage"] == {
            "prompt_tokens": own.prompt_tokens,
            "completion_tokens": 40,
            "total_tokens": own.prompt_tokens + 40,
        }
        assert body["speculation"]["rule"] == "race" and body["speculation"]["steps"] > 0


async def test_defaults_are_those_of_openai():
    async with front() as found:
        body = await found.complete(temperature=None, seed=None, ignore_eos=None)
        assert body["usage"]["completion_tokens"] <= 16
        texts = {(await found.complete(temperature=5, seed=None))["choices"][0]["text"] for _ in range(3)}
        assert len(texts) == 3, "a seed of its own for each request"


async def test_a_stream_joined_is_the_whole_text_in_whole_characters():
    async with front() as found:
        whole = await found.complete(max_tokens=60, temperature=0)
        fields = {
            **STORY,
            "max_tokens": 60,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        response = await found.post("/v1/completions", **fields)
        assert response.headers["content-type"].startswith("text/event-stream")
        *chunks, usage, done = events_of(response.text)
        assert done == "[DONE]" and len(chunks) > 5
        assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole["choices"][0]["text"]
        assert all("\ufffd" not in chunk["choices"][0]["text"] for chunk in chunks)
        assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
        assert len({chunk["id"] for chunk in (*chunks, usage)}) == 1 and all(chunk["usage"] is None for chunk in chunks)
        assert usage["choices"] == [] and usage["usage"] == whole["usage"] and usage["speculation"]["steps"] > 0
        silent = await found.post("/v1/completions", **{**fields, "stream_options": None})
        assert all("usage" not in event for event in events_of(silent.text)[:-1])


async def test_bytes_that_are_no_character_are_replaced_alike_in_whole_and_streamed_texts():
    async with front() as found:
        for seed in range(5):
            fields = {"max_tokens": 40, "temperature": 1.5, "seed": seed}
            whole = (await found.complete(**fields))["choices"][0]["text"]
            assert "\ufffd" in whole
            response = await found.post("/v1/completions", **{**STORY, **fields, "stream": True})
            assert "".join(event["choices"][0]["text"] for event in events_of(response.text)[:-1]) == whole


async def test_stop_strings_and_end_tokens_say_what_ended_the_text():
    async with front() as found:
        for stop in (" mat", [" nothing", " mat"]):
            body = await found.complete(max_tokens=200, temperature=0, stop=stop)
            (choice,) = body["choices"]
            assert (
                choice["finish_reason"] == "stop" and choice["stop_reason"] == " mat" and " mat" not in choice["text"]
            )
        body = await found.complete(max_tokens=200, temperature=0, ignore_eos=False)
        assert body["choices"][0]["stop_reason"] in TARGET_VOCAB.end_ids


async def test_several_choices_of_several_prompts_are_each_what_they_are_alone():
    async with front() as found:
        fields = {"max_tokens": 20, "temperature": 1.5}
        both = await found.complete(prompt=["a story: ", "another: "], n=3, **fields)
        assert [choice["index"] for choice in both["choices"]] == list(range(6))
        texts = [choice["text"] for choice in both["choices"]]
        assert len(set(texts[:3])) == 3
        for at, prompt in enumerate(("a story: ", "another: ")):
            alone = await found.complete(prompt=prompt, n=3, **fields)
            assert [choice["text"] for choice in alone["choices"]] == texts[3 * at : 3 * at + 3]
            single = await found.complete(prompt=prompt, **fields)
            assert single["choices"][0]["text"] == texts[3 * at]
        assert both["usage"]["completion_tokens"] == 120
        streamed = await found.post("/v1/completions", **{**STORY, **fields, "n": 3, "stream": True})
        joined = {index: "" for index in range(3)}
        for event in events_of(streamed.text)[:-1]:
            joined[event["choices"][0]["index"]] += event["choices"][0]["text"]
        assert list(joined.values()) == texts[:3]
        await baseline(found.verifier, found.engine)


async def test_token_ids_are_prompts_as_the_text_they_stand_for():
    ids = TextTokenizer().encode("the cat sat, 猫")
    async with front() as found:
        text = await found.complete(prompt="the cat sat, 猫", echo=True)
        for prompt in (ids, [ids]):
            assert (await found.complete(prompt=prompt, echo=True))["choices"][0]["text"] == text["choices"][0]["text"]
        both = await found.complete(prompt=[ids, ids], echo=True)
        assert [choice["text"] for choice in both["choices"]] == [text["choices"][0]["text"]] * 2
        for bad, words in (
            ([*ids, 0xE7], "not UTF-8"),
            ([next(iter(TARGET_VOCAB.special)), *ids], "special token <pause>"),
            ([TARGET_VOCAB.size], "no token of the model"),
            ([-1], "is no token id"),
        ):
            response = await found.post("/v1/completions", **{**STORY, "prompt": bad})
            assert response.status_code == 400 and words in response.json()["error"]["message"], response.text


async def test_echo_comes_first_in_a_stream_too():
    async with front() as found:
        response = await found.post("/v1/completions", **{**STORY, "echo": True, "stream": True})
        assert events_of(response.text)[0]["choices"][0]["text"] == PROMPT


async def test_the_same_text_with_and_without_a_drafter():
    async with front(plan=WAITING, adaptive=False) as found:
        alone = await found.complete(max_tokens=60)
        async with drafting(found.verifier_address):
            await drafters(found.verifier, 1)
            drafted = await found.complete(max_tokens=60)
            undrafted = await found.complete(max_tokens=60, draft=False)
        assert drafted["choices"] == alone["choices"] == undrafted["choices"]
        assert sum(drafter["accepted_tokens"] for drafter in drafted["speculation"]["drafters"]) > 0
        assert undrafted["speculation"]["drafters"] == []


async def test_a_prediction_is_told_what_became_of_it():
    async with front() as found:
        plain = await found.complete(max_tokens=60)
        assert "completion_tokens_details" not in plain["usage"]
        text = plain["choices"][0]["text"]
        for prediction in (text, {"type": "content", "content": [{"type": "text", "text": text}]}):
            body = await found.complete(max_tokens=60, prediction=prediction)
            assert body["choices"] == plain["choices"]
            details = body["usage"]["completion_tokens_details"]
            assert details["accepted_prediction_tokens"] > 0 and details["rejected_prediction_tokens"] >= 0


async def test_openais_own_clients():
    async with front() as found:
        whole = await found.complete(max_tokens=30)
        fields = {"model": MODEL, "prompt": PROMPT, "seed": 9, "temperature": 0.8, "max_tokens": 30}
        ours = {"ignore_eos": True}
        answer = await found.openai.completions.create(**fields, extra_body=ours)
        assert answer.choices[0].text == whole["choices"][0]["text"] and answer.usage.total_tokens > 30
        stream = await found.openai.completions.create(**fields, extra_body=ours, stream=True)
        assert "".join([chunk.choices[0].text async for chunk in stream]) == answer.choices[0].text

        def without_a_loop() -> str:
            with openai.OpenAI(base_url=f"{found.url}/v1", api_key="none", max_retries=0) as client:
                return client.completions.create(**fields, extra_body=ours).choices[0].text

        assert await asyncio.to_thread(without_a_loop) == answer.choices[0].text
