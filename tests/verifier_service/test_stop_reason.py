"""What ended a text: the stop string, the end token or the length; and which of its tokens count, as vLLM has it."""

from __future__ import annotations

import pytest

from dragoman.client import Client
from speculation.protocol.completion import Completion
from speculation.protocol.messages import Prompt
from tests.support.service_drivers import SLOW, drafters, drafting, serving
from tests.support.text_engine import TextEngine
from tests.support.text_models import TARGET_VOCAB

PROMPT = Prompt(text="a story: ")


async def answer(client: Client, **options) -> Completion:
    return await client.complete(PROMPT, **options)


@pytest.mark.parametrize("draft", [False, True])
async def test_the_stop_string_is_named_and_its_tokens_count(draft: bool):
    async with serving(TextEngine(), plan=SLOW) as (verifier, address), Client(address) as client, drafting(address):
        await drafters(verifier, 1)
        whole = await answer(client, max_tokens=60, draft=draft, ignore_end=True)
        assert (whole.finish_reason, whole.stop_reason) == ("length", None)
        stop = whole.text[20:26]
        at = whole.text.index(stop)
        cut = await answer(client, max_tokens=60, draft=draft, ignore_end=True, stop=["never written", stop])
    assert (cut.finish_reason, cut.stop_reason) == ("stop", stop)
    assert cut.text == whole.text[:at]
    assert cut.token_ids == whole.token_ids[: cut.completion_tokens], "the tokens that the target wrote, no more"
    written = b"".join(TARGET_VOCAB.bytes_of(token) for token in cut.token_ids)
    assert written.startswith((cut.text + stop).encode()), "those of the stop string among them"
    shorter = b"".join(TARGET_VOCAB.bytes_of(token) for token in cut.token_ids[:-1])
    assert stop.encode() not in shorter, "and none after it"
    assert cut.to_json()["stop_reason"] == stop
    assert cut.to_json()["usage"]["completion_tokens"] == len(cut.token_ids)


async def test_the_end_token_is_named_and_counts():
    async with serving(TextEngine(), plan=SLOW) as (_, address), Client(address) as client:
        ended = await answer(client)
    assert ended.finish_reason == "stop" and ended.stop_reason in TARGET_VOCAB.end_ids
    assert ended.token_ids[-1] == ended.stop_reason
    assert ended.to_json()["stop_reason"] == ended.stop_reason


async def test_of_two_stop_strings_the_one_that_comes_first_is_named():
    async with serving(TextEngine(), plan=SLOW) as (_, address), Client(address) as client:
        text = (await answer(client, max_tokens=40, ignore_end=True)).text
        early, late = text[10:14], text[24:28]
        cut = await answer(client, max_tokens=40, ignore_end=True, stop=[late, early])
    assert text.index(early) < text.index(late)
    assert (cut.stop_reason, cut.text) == (early, text[: text.index(early)])
