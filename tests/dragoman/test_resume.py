"""A text resumed at one verifier, over real gRPC on loopback: from its bytes, after a restart, after a change.

Every fault ends in: the same bytes, no session left open, KV memory back to its baseline.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from typing import Any

import grpc
import pytest

from dragoman import Chunk, Client
from dragoman.transcript import Transcript, generation_request
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import ConnectionFailedError, DivergedError, DrainingError
from speculation.protocol.generation import Started
from speculation.sampling.params import Rule
from speculation.text.text_stream import TextRun
from tests.support.long_text import ASK, PROMPT, SAMPLING, at_chunk, expected
from tests.support.service_drivers import (
    LOOPBACK,
    baseline,
    drafters,
    drafting,
    eventually,
    request,
    serving,
    stub_to,
    text_of,
)
from tests.support.text_engine import TextEngine
from verifier_service.server import VerifierServer
from verifier_service.verifier import Verifier


@pytest.mark.parametrize("stop", [(), ("dog",)])
async def test_a_verifier_resumes_from_any_byte(stop: tuple[str, ...]) -> None:
    engine = TextEngine()
    async with serving(engine) as (verifier, address):
        options: dict[str, Any] = {"max_tokens": 60, "stop": [text.encode() for text in stop]}
        text, finished = await text_of(address, request(SAMPLING, **options))
        for cut in range(0, len(text) + 1, 3):
            rest, again = await text_of(address, request(SAMPLING, received=text[:cut], **options))
            assert text[:cut] + rest == text
            assert again.completion_tokens == finished.completion_tokens
            assert again.replayed_tokens <= again.completion_tokens and (again.replayed_tokens > 0) == (cut > 0)
        assert verifier.committed_tokens < 25 * finished.completion_tokens, "replayed tokens are not counted twice"
        await baseline(verifier, engine)


async def test_drafters_come_when_the_replay_is_over() -> None:
    engine = TextEngine(step_seconds=0.02)
    async with serving(engine) as (verifier, address), drafting(address), drafting(address):
        await drafters(verifier, 2)
        text, _ = await text_of(address, request(SAMPLING, max_tokens=100, ignore_end=True))
        await baseline(verifier, engine)  # the first session is gone for good
        engine.gate.clear()
        asked = request(SAMPLING, max_tokens=100, ignore_end=True, received=text[:-60])
        resuming = asyncio.create_task(text_of(address, asked))
        await eventually(lambda: verifier.sessions)
        seen = [(opened.session.replaying, len(opened.drafters)) for opened in verifier.sessions]
        engine.gate.set()
        assert seen == [(True, 0)]
        rest, finished = await resuming
        assert text[:-60] + rest == text
        assert 0 < finished.speculation.accepted_tokens < 100 - finished.replayed_tokens
        assert finished.speculation.steps + finished.speculation.accepted_tokens == 100 - finished.replayed_tokens
        await baseline(verifier, engine)


async def test_bytes_of_another_text_are_refused_and_leave_nothing() -> None:
    engine = TextEngine()
    async with serving(engine) as (verifier, address), Client(address) as client:
        known = verifier.describe()
        transcript = Transcript(generation_request("a story: ", sampling=SAMPLING, max_tokens=60), lambda chunk: None)
        transcript.take(Started("s", 1, model=known.model, vocab_hash=known.vocab_hash, dtype=known.dtype))
        transcript.take(Chunk((TextRun(b"once upon a time", False),), (1, 2)))
        with pytest.raises(DivergedError, match="differs"):
            await client.follow(transcript)
        await baseline(verifier, engine)


async def test_a_client_resumes_at_a_restarted_verifier_if_asked() -> None:
    whole = await expected()
    engine = TextEngine(step_seconds=0.01)
    async with contextlib.AsyncExitStack() as first, contextlib.AsyncExitStack() as second:
        _, address = await first.enter_async_context(serving(engine))

        async def restart() -> None:
            await first.aclose()
            await second.enter_async_context(serving(engine, listen=address))

        restarts: list[asyncio.Task[None]] = []
        chunks, watch = at_chunk(10, lambda: restarts.append(asyncio.create_task(restart())))
        async with Client(address, resume=True) as client:
            text = await client.complete(PROMPT, **ASK, on_chunk=watch)
        assert text.data == whole.data == b"".join(run.text for chunk in chunks for run in chunk.runs)
        assert text.token_ids == whole.token_ids == [token for chunk in chunks for token in chunk.token_ids]
        assert text.resumes == 1 and 0 < text.replayed_tokens < 120
        await restarts[0]
    assert engine.open_slots == 0


async def test_another_model_at_the_address_does_not_write_the_text_on() -> None:
    other = TextEngine(step_seconds=0.01)
    other.dtype_name = "bfloat16"
    async with contextlib.AsyncExitStack() as first, contextlib.AsyncExitStack() as second:
        _, address = await first.enter_async_context(serving(TextEngine(step_seconds=0.01)))

        async def replace() -> None:
            await first.aclose()
            await second.enter_async_context(serving(other, listen=address))

        replacing: list[asyncio.Task[None]] = []
        _, watch = at_chunk(10, lambda: replacing.append(asyncio.create_task(replace())))
        async with Client(address, resume=True, patience=2) as client:
            with pytest.raises(Exception, match=r"begun by.*float32") as caught:
                await client.complete(PROMPT, **ASK, on_chunk=watch)
        assert "bytes of text received" in str(caught.value)
        await replacing[0]
    assert other.open_slots == 0


async def test_without_resume_a_stopping_verifier_says_so() -> None:
    engine = TextEngine(step_seconds=0.01)
    verifier = Verifier(engine)
    server = VerifierServer(verifier)
    address = await server.start(LOOPBACK)
    stopping: list[asyncio.Task[None]] = []
    _, watch = at_chunk(5, lambda: stopping.append(asyncio.create_task(server.stop(0.1))))
    async with Client(address) as client:
        with pytest.raises(DrainingError, match="hands its sessions over"):
            await client.complete(PROMPT, **ASK, on_chunk=watch)
        await stopping[0]
    async with Client(address, resume=True) as client:
        with pytest.raises(ConnectionFailedError):
            await client.complete(PROMPT, **ASK)
    assert engine.open_slots == 0


async def test_session_lines_carry_the_session(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "verifier_service")
    async with serving(TextEngine(step_seconds=0.01)) as (verifier, address), drafting(address):
        await drafters(verifier, 1)
        names: list[str] = []

        async def watch(text: bytes) -> None:
            names.extend(opened.name for opened in verifier.sessions)

        await text_of(address, request(SAMPLING), watch)
        await eventually(lambda: not verifier.sessions)
    lines = [record for record in caplog.records if hasattr(record, "session")]
    assert {record.session for record in lines} == set(names)
    assert all(record.getMessage().startswith(f"session {names[0]}: ") for record in lines)
    assert any("offered to drafter" in record.getMessage() for record in lines)
    assert any("ends with" in record.getMessage() for record in lines)


def chunk(text: bytes, *token_ids: int) -> Chunk:
    return Chunk((TextRun(text, False),) if text else (), token_ids)


async def test_an_old_verifier_is_not_asked_to_resume() -> None:
    """One that does not know the field would send the text from its beginning."""
    transcript = Transcript(generation_request(PROMPT), lambda chunk: None)
    transcript.next_request()
    transcript.take(Started("s", 1))
    transcript.take(chunk(b"ab", 1))
    assert transcript.next_request().received == b"ab"
    with pytest.raises(Exception, match="too old to resume"):
        transcript.take(Started("t", 1))


def told(transcript: Transcript, *events: Started | Chunk) -> None:
    for event in events:
        transcript.take(event)


@pytest.mark.parametrize("rule", [Rule.RACE, Rule.REJECTION])
def test_a_text_whose_rule_was_left_open_is_resumed_under_the_one_it_was_begun_under(rule: Rule) -> None:
    restarts: list[None] = []
    asked = generation_request(PROMPT, rule=Rule.AUTO)
    transcript = Transcript(asked, lambda chunk: None, on_restart=lambda: restarts.append(None))
    assert transcript.next_request().rule == Rule.AUTO
    told(transcript, Started("s", 1, rule=rule))
    assert transcript.next_request().rule == Rule.AUTO, "it has no beginning yet"
    told(transcript, Started("s", 1, rule=rule), chunk(b"ab", 1))
    assert transcript.next_request().rule == rule and transcript.next_request().received == b"ab"
    assert transcript.restart() and len(restarts) == 1
    assert transcript.next_request().rule == Rule.AUTO


def test_a_text_of_which_nothing_was_shown_begins_anew_under_a_rule_that_is_not_resumed() -> None:
    """Half a character was held back; the next verifier writes another text."""
    transcript = Transcript(generation_request(PROMPT, rule=Rule.REJECTION), lambda chunk: None)
    told(transcript, Started("s", 1, rule=Rule.REJECTION), chunk(b"", 11))
    assert not transcript.next_request().received
    again = chunk(b"ab", 77, 78)
    told(transcript, Started("s", 1, rule=Rule.REJECTION), again)
    assert transcript.completion.token_ids == [77, 78] and transcript.completion.resumes == 1


def test_what_came_with_the_first_token_is_not_counted_as_written_in_no_time() -> None:
    transcript = Transcript(generation_request(PROMPT), lambda chunk: None)
    told(transcript, Started("s", 1), chunk(b"ab", 1, 2, 3))
    assert transcript.completion.tpot is None and transcript.completion.tokens_per_second is None
    told(transcript, chunk(b"c", 4, 5))
    completion = transcript.completion
    completion.ttft, completion.e2el = 1.0, 2.0
    assert completion.decode_tokens == 2 and completion.tpot == 0.5 and completion.tokens_per_second == 2.0


async def test_no_text_is_resumed_under_a_rule_that_is_still_open() -> None:
    engine = TextEngine()
    async with serving(engine) as (verifier, address), stub_to(address) as stub:
        first = await stub.Generate(request(SAMPLING, rule=Rule.AUTO)).read()
        assert first.started.rule == pb.RULE_RACE, "nobody drafts"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Generate(request(SAMPLING, rule=Rule.AUTO, received=b"once")).read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert re.search(r"rule=.*auto.*begun under one rule", str(caught.value.details()))
        await baseline(verifier, engine)
