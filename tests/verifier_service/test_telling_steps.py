"""What a client that asks for it is told of every step: what was tried, what was not accepted, by which plan."""

from __future__ import annotations

import dataclasses

from dragoman.client import Client
from speculation.protocol.generation import Chunk, GenerationRequest
from speculation.protocol.messages import Prompt
from speculation.source import SourceKind
from tests.support.service_drivers import SLOW, WAITING, WARM, drafters, drafting, serving, stub_to
from tests.support.text_engine import TextEngine
from transport.generation_codec import request_to_wire
from verifier_service.recycled_texts import Recycle, RecycledTexts


def asking(*, tell_steps: bool = True, received: bytes = b"") -> GenerationRequest:
    return GenerationRequest(
        prompt=Prompt(text="a story: "),
        sampling=WARM,
        max_tokens=150,
        ignore_end=True,
        received=received,
        tell_steps=tell_steps,
    )


async def chunks_of(client: Client, request: GenerationRequest) -> list[Chunk]:
    chunks: list[Chunk] = []
    await client.write(request, on_chunk=chunks.append)
    return chunks


async def test_a_step_tells_what_it_tried_and_what_was_rejected():
    nothing_else = RecycledTexts(Recycle.NONE)  # which is not told where it is rejected
    async with (
        serving(TextEngine(), plan=WAITING, adaptive=False, recycled=nothing_else) as (verifier, address),
        Client(address) as client,
        drafting(address),
    ):
        await drafters(verifier, 1)
        chunks = await chunks_of(client, asking())
    for chunk in chunks:
        step = chunk.step
        assert step is not None and step.plan.lookahead == SLOW.lookahead
        assert len(chunk.token_ids) == step.accepted_tokens + 1
        assert step.accepted_tokens <= step.positions <= step.draft_tokens
        assert (step.rejected_source is None) == (step.rejected == b"")
        assert not (step.rejected and step.accepted_tokens == step.draft_tokens)
        assert step.rejected or step.accepted_tokens or not step.draft_tokens
    assert sum(chunk.step is not None and chunk.step.rejected_source is SourceKind.DRAFTER for chunk in chunks) > 3
    assert all(chunk.step is not None and chunk.step.round_trip is not None for chunk in chunks[-3:])


async def test_no_more_was_accepted_than_a_stop_string_left():
    """Wherever it cuts: in a block, between two, at the bonus token."""
    async with (
        serving(TextEngine(), plan=WAITING, adaptive=False) as (verifier, address),
        Client(address) as client,
        drafting(address),
    ):
        await drafters(verifier, 1)
        whole = b"".join(chunk.data for chunk in await chunks_of(client, asking())).decode("utf-8", "replace")
        cut = 0
        for at in range(60, 76):
            chunks = await chunks_of(
                client, dataclasses.replace(asking(), stop=(whole[at - 6 : at].encode(),), ignore_end=False)
            )
            steps = [(chunk.step, len(chunk.token_ids)) for chunk in chunks]
            assert all(step is not None and step.accepted_tokens <= tokens for step, tokens in steps)
            cut += sum(step is not None and step.accepted_tokens == tokens for step, tokens in steps)
        assert cut, "no stop string ended within accepted tokens"


async def test_what_is_told_changes_no_text_and_is_told_to_none_who_does_not_ask():
    async with serving(TextEngine(), plan=WAITING) as (verifier, address), Client(address) as client, drafting(address):
        await drafters(verifier, 1)
        told, silent = [await chunks_of(client, asking(tell_steps=asks)) for asks in (True, False)]
    assert b"".join(chunk.data for chunk in told) == b"".join(chunk.data for chunk in silent)
    assert all(chunk.step is None for chunk in silent)


async def test_of_text_that_is_written_anew_nothing_is_told():
    async with serving(TextEngine(), plan=WAITING) as (_, address), Client(address) as client, stub_to(address) as stub:
        whole = b"".join(chunk.data for chunk in await chunks_of(client, asking()))
        answer = stub.Generate(request_to_wire(asking(received=whole[:60])))
        chunks = [event.chunk async for event in answer if event.HasField("chunk")]
    anew = [chunk for chunk in chunks if not chunk.HasField("step")]
    assert anew and chunks[: len(anew)] == anew and len(anew) < len(chunks)
    assert b"".join(run.text for chunk in chunks for run in chunk.runs) == whole[60:]
