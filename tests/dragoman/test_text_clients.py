"""Completions as a whole and chunk by chunk, with and without an event loop, over a socket and in this process."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from dragoman import (
    Client,
    Completion,
    ConnectionFailedError,
    Dragoman,
    FinishReason,
    InputError,
    Rule,
    SamplingParams,
    SessionError,
    SourceKind,
    SyncClient,
    SyncDragoman,
    SyncFleetClient,
)
from speculation.protocol.messages import Prompt, SpeculationPlan
from tests.support.service_drivers import WARM, baseline, drafting, eventually, serving
from tests.support.text_engine import TextDrafter, TextEngine
from tests.support.tiny_models import load_tiny
from verifier_service.transformers_engine import TransformersEngine

PROMPT = "a story: "


async def whole(**options) -> Completion:
    async with serving(TextEngine()) as (_, address), Client(address) as client:
        return await client.complete(PROMPT, sampling=WARM, max_tokens=60, **options)


async def test_a_stream_is_the_completion_piece_by_piece():
    expected, engine = await whole(), TextEngine()
    async with serving(engine) as (verifier, address), Client(address) as client:
        stream = client.stream(PROMPT, sampling=WARM, max_tokens=60)
        chunks = [chunk async for chunk in stream]
        assert b"".join(chunk.data for chunk in chunks) == stream.completion.data == expected.data
        assert "".join(chunk.text for chunk in chunks) == stream.completion.text
        assert [token for chunk in chunks for token in chunk.token_ids] == expected.token_ids
        assert stream.completion.finish_reason is expected.finish_reason
        assert isinstance(stream.completion.finish_reason, FinishReason)
        assert [chunk async for chunk in stream] == [], "it is over"
        await baseline(verifier, engine)


async def test_whoever_leaves_a_stream_ends_the_session():
    engine = TextEngine(step_seconds=0.01)
    async with serving(engine) as (verifier, address), Client(address) as client:
        async with client.stream(PROMPT, sampling=WARM, max_tokens=2000, ignore_end=True) as stream:
            async for chunk in stream:
                if chunk.text:
                    break
        await baseline(verifier, engine)
        unread = client.stream(PROMPT)
        await unread.aclose()
        assert not verifier.sessions, "nothing is asked before the first chunk is"


async def test_a_stream_that_fails_gives_what_came_and_then_the_error():
    engine = TextEngine(step_seconds=0.01)
    async with serving(engine) as (verifier, address), Client(address) as client:
        stream, seen = client.stream(PROMPT, sampling=WARM, max_tokens=2000, ignore_end=True), 0
        with pytest.raises(SessionError, match="hands its sessions over"):
            async for _ in stream:
                seen += 1
                if seen == 3:
                    verifier.hand_over()
        assert seen >= 3
        await baseline(verifier, engine)
    with pytest.raises(InputError, match=r"^stop="):
        client.stream(PROMPT, stop=[""])


# ---- without an event loop --------------------------------------------------------------------------------------


async def test_the_synchronous_client_gives_the_same_completion():
    expected = await whole()

    def ask(address) -> tuple[Completion, list[str], str]:
        with SyncClient(address) as client:
            texts: list[str] = []
            completion = client.complete(PROMPT, sampling=WARM, max_tokens=60, on_chunk=lambda c: texts.append(c.text))
            with client.stream(PROMPT, sampling=WARM, max_tokens=60) as stream:
                pieces = [chunk.text for chunk in stream]
            assert stream.completion.data == completion.data
            return completion, pieces, client.describe().model

    engine = TextEngine()
    async with serving(engine) as (verifier, address):
        completion, pieces, model = await asyncio.to_thread(ask, address)
        assert completion.data == expected.data and "".join(pieces) == expected.text and model == engine.name
        await baseline(verifier, engine)
    assert not [thread for thread in threading.enumerate() if thread.name == "dragoman"], "its thread has ended"


async def test_a_synchronous_stream_that_is_left_ends_the_session():
    engine = TextEngine(step_seconds=0.01)

    def leave(address) -> None:
        with SyncClient(address) as client, client.stream(PROMPT, max_tokens=2000, ignore_end=True) as stream:
            next(stream)

    async with serving(engine) as (verifier, address):
        await asyncio.to_thread(leave, address)
        await baseline(verifier, engine)


def test_synchronous_clients_raise_what_the_asynchronous_ones_do():
    with SyncClient("127.0.0.1:1") as client, pytest.raises(ConnectionFailedError, match="no verifier answers"):
        client.complete(PROMPT)
    with SyncFleetClient("127.0.0.1:1") as fleet, pytest.raises(ConnectionFailedError, match="no coordinator answers"):
        fleet.complete(PROMPT)
    with pytest.raises(InputError, match=r"^verifier="):
        SyncClient("no port:x")
    assert not [thread for thread in threading.enumerate() if thread.name == "dragoman"]


async def at_rest(model: Dragoman, engine: TextEngine) -> None:
    """No stuck session, and the KV memory is back to its baseline."""
    for _ in range(1000):
        status = await model.describe()
        if not (status.sessions or status.kv_cache_bytes or engine.open_slots):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"still open: {status}, {engine.open_slots}")


# ---- in this process ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [Rule.RACE, Rule.EXACT])
async def test_in_one_process_the_text_is_that_of_the_services(rule: Rule):
    expected = await whole(rule=rule)
    engine = TextEngine()
    async with Dragoman(engine, [TextDrafter(), TextDrafter()]) as model:
        completion = await model.complete(PROMPT, sampling=WARM, max_tokens=60, rule=rule)
        assert completion.data == expected.data and completion.token_ids == expected.token_ids
        assert completion.stats.drafters_connected == 2 and completion.stats.accepted_tokens > 0
        assert len(completion.shares_of(SourceKind.DRAFTER)) == 2
        async with model.stream(PROMPT, sampling=WARM, max_tokens=60, rule=rule) as stream:
            assert b"".join([chunk.data async for chunk in stream]) == expected.data
        await at_rest(model, engine)
        assert len((await model.describe()).drafters) == 2
    assert engine.open_slots == 0
    with pytest.raises(SessionError, match="not loaded"):
        await model.complete(PROMPT)


async def test_sessions_in_one_process_run_side_by_side_and_end_when_they_are_left():
    engine = TextEngine(step_seconds=0.005)
    async with Dragoman(engine, [TextDrafter()]) as model:
        alone = await model.complete(PROMPT, sampling=WARM, max_tokens=40, draft=False)
        asked = [model.complete(PROMPT, sampling=WARM, max_tokens=40) for _ in range(4)]
        assert {(await text).data for text in map(asyncio.ensure_future, asked)} == {alone.data}
        leaving = asyncio.ensure_future(model.complete(PROMPT, max_tokens=2000, ignore_end=True))
        await eventually(lambda: engine.open_slots)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await at_rest(model, engine)


async def test_what_runs_when_the_models_are_let_go_ends_with_an_error():
    engine = TextEngine(step_seconds=0.01)
    async with Dragoman(engine) as model:
        writing = [asyncio.ensure_future(model.complete(PROMPT, max_tokens=2000, ignore_end=True)) for _ in range(3)]
        await eventually(lambda: engine.open_slots == 3)
    for completion in writing:
        with pytest.raises(SessionError, match="has stopped"):
            await asyncio.wait_for(completion, 30)
    assert engine.open_slots == 0


async def test_a_drafter_that_leaves_no_trace_behind_is_not_needed_by_the_text():
    """A remote drafter beside one in this process: over the verifier's server both serve the same session."""
    engine = TextEngine()
    async with serving(engine) as (verifier, address), drafting(address), Client(address) as client:
        await eventually(lambda: verifier.roster.links)
        expected = await whole()
        assert (await client.complete(PROMPT, sampling=WARM, max_tokens=60)).data == expected.data
        await baseline(verifier, engine)


def test_three_lines_to_text(tiny_qwen2: Path, tiny_llama: Path):
    """With real models, by their folders; the bytes are those of the target alone."""
    with SyncDragoman(target=str(tiny_qwen2), drafters=[str(tiny_llama), "lookup"], dtype="float32") as model:
        drafted = model.complete("The heron", max_tokens=16, sampling=SamplingParams(temperature=1.0, seed=5))
    plan = SpeculationPlan(width=0)
    with SyncDragoman(target=str(tiny_qwen2), drafters=["lookup"], plan=plan, dtype="float32") as alone:
        assert alone.complete("The heron", max_tokens=16).stats.draft_tokens == 0
        assert alone.complete("The heron", max_tokens=16, sampling=SamplingParams(temperature=1.0, seed=5)).data == (
            drafted.data
        )
    assert drafted.stats.draft_tokens > 0 and drafted.completion_tokens == 16


async def test_loaded_engines_and_bad_models(tiny_qwen2: Path):
    engine = TransformersEngine(load_tiny(tiny_qwen2))
    async with Dragoman(engine) as model:
        assert (await model.complete(Prompt(text="The heron"), max_tokens=4)).completion_tokens == 4
    with pytest.raises(InputError, match=r"^dtype="):
        SyncDragoman(str(tiny_qwen2), dtype="int8")
    with pytest.raises(Exception, match="no-such-model"):
        SyncDragoman("no-such-model")
    assert not [thread for thread in threading.enumerate() if thread.name in ("dragoman", "drafter")]
