"""Requests that are too large: named where they are made, refused where they are admitted, never in gRPC's words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from dragoman.client import Client
from dragoman.transcript import Transcript, generation_request
from speculation.errors import InputError
from speculation.protocol.generation import Chunk, Started
from speculation.protocol.messages import ChatMessage, Prompt
from speculation.sampling.params import SamplingParams
from speculation.text.text_stream import TextRun
from tests.support.commands import dragoman
from tests.support.service_drivers import request, serving, stub_to
from tests.support.text_engine import TextEngine
from transport.generation_codec import request_to_wire
from transport.limits import MAX_MESSAGE_BYTES, WireLimits

pytestmark = pytest.mark.process

LIMITS = WireLimits()
SHORT = Prompt(text="a story: ")
TOO_LARGE: dict[str, tuple[Prompt, dict[str, Any]]] = {
    "prompt": (Prompt(text="x" * (5 << 20)), {}),
    "messages": (Prompt(messages=(ChatMessage("user", "é" * LIMITS.prompt_bytes),)), {}),
    "prediction": (SHORT, {"prediction": "x" * (LIMITS.prediction_bytes + 1)}),
    "stop": (SHORT, {"stop": ["x" * 1000] * (LIMITS.stop_bytes // 1000 + 1)}),
    "request": (SHORT, {"sampling": SamplingParams(logit_bias={token: 1.0 for token in range(400_000)})}),
}


@pytest.mark.parametrize("field", TOO_LARGE)
async def test_a_request_that_is_too_large_is_named_where_it_is_made(field: str):
    prompt, options = TOO_LARGE[field]
    async with Client("127.0.0.1:1") as client:  # where nobody is asked
        with pytest.raises(InputError, match=rf"^{field}='\d+ bytes': is too long; the limit is \d+ bytes \(.+\)"):
            await client.complete(prompt, **options)


def test_all_of_it_together_fits_into_a_message():
    largest = generation_request(
        Prompt(text="x" * (LIMITS.prompt_bytes - 10)),
        prediction="x" * LIMITS.prediction_bytes,
        stop=["x" * 1000] * (LIMITS.stop_bytes // 1004),
    )
    largest = replace(largest, received=b"x" * LIMITS.received_bytes)
    assert request_to_wire(largest).ByteSize() <= MAX_MESSAGE_BYTES
    with pytest.raises(InputError, match=r"^received="):
        request_to_wire(replace(largest, received=largest.received + b"x"))


def test_many_messages_without_a_word_are_not_small():
    with pytest.raises(InputError, match=r"^messages="):
        generation_request(Prompt(messages=(ChatMessage("user", ""),) * 270_000))


def test_a_text_that_grew_too_long_cannot_be_resumed():
    transcript = Transcript(generation_request(SHORT), lambda chunk: None)
    transcript.take(Started("s", 1))
    transcript.take(Chunk((TextRun(b"x" * (LIMITS.received_bytes + 1), False),), (1,)))
    with pytest.raises(InputError, match=r"^received='524289 bytes'"):
        request_to_wire(transcript.next_request())


@pytest.mark.parametrize("field", ["prompt", "stop", "received"])
async def test_admission_knows_the_limits_too(field: str):
    limits = WireLimits(**{f"{field}_bytes": 8})
    fields: dict[str, dict[str, Any]] = {"stop": {"stop": [b"x" * 8]}, "received": {"received": b"x" * 9}}
    async with serving(TextEngine(), limits=limits) as (_, address), stub_to(address) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Generate(request(SamplingParams(), **fields.get(field, {}))).read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"{field}='" in str(caught.value.details()) and "the limit is 8 bytes" in str(caught.value.details())


def test_a_prompt_of_5_mib_from_the_command_line(tmp_path: Path):
    (tmp_path / "prompt.txt").write_text("x" * (5 << 20))
    done = dragoman("generate", "--verifier=127.0.0.1:1", f"--prompt-file={tmp_path}/prompt.txt")
    assert done.returncode == 2 and "prompt='5242885 bytes'" in done.stderr and not done.stdout
    assert "the limit is 2097152 bytes" in done.stderr and "fix: " in done.stderr
