"""Clients that outlive their verifier, over real gRPC on loopback: resume, fail over, hand over, wait, give up.

Every fault ends in: the same bytes, no session left open, KV memory back to its baseline.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

import pytest

from coordinator.server import CoordinatorServer
from dragoman import Chunk, Client, Completion, FleetClient
from dragoman.coordinator_client import CoordinatorClient
from protos.dragoman.v1 import dragoman_pb2 as pb
from protos.transport import Address
from speculation.errors import (
    ConnectionFailedError,
    DivergedError,
    DrainingError,
    InputError,
    LimitExceededError,
    NoVerifierError,
)
from speculation.messages import Prompt
from speculation.sampling import SamplingParams
from tests.service_drivers import LOOPBACK, baseline, drafters, drafting, eventually, request, serving, text_of
from tests.test_fleet_members import SAMPLING, coordinating, running
from tests.text_engine import TextEngine
from verifier_service.fleet_member import VerifierMember
from verifier_service.server import VerifierServer
from verifier_service.verifier import Verifier

PROMPT = Prompt(text="a story: ")
ASK = {"sampling": SAMPLING, "max_tokens": 120, "ignore_end": True}
SHORT = {**ASK, "max_tokens": 30}


class Replica:
    """A verifier in the fleet, and how to lose it."""

    def __init__(self, engine: TextEngine, verifier: Verifier, address: Address, stack: contextlib.AsyncExitStack):
        self.engine = engine
        self.verifier = verifier
        self.address = address
        self._stack = stack

    async def stop(self) -> None:
        await self._stack.aclose()


@contextlib.asynccontextmanager
async def replica(
    coordinator: Address, name: str, *, listen: Address = LOOPBACK, engine: TextEngine | None = None, **kwargs
) -> AsyncIterator[Replica]:
    engine = engine or TextEngine(step_seconds=0.01)
    async with contextlib.AsyncExitStack() as stack:
        verifier, address = await stack.enter_async_context(serving(engine, listen=listen, **kwargs))
        member = VerifierMember(verifier, coordinator, instance=name, name=name, advertised=str(address))
        await stack.enter_async_context(running(member))
        yield Replica(engine, verifier, address, stack)


async def registered(server: CoordinatorServer, count: int) -> None:
    await eventually(lambda: sum(m.reports > 0 for m in server.fleet.registry.verifiers) == count)


async def expected() -> Completion:
    async with serving(TextEngine()) as (_, address), Client(address) as client:
        return await client.complete(PROMPT, **ASK)


def at_chunk(number: int, act: Callable[[], object]) -> tuple[list[Chunk], Callable[[Chunk], None]]:
    """The chunks so far, and a watcher that acts at the given one."""
    chunks: list[Chunk] = []

    def watch(chunk: Chunk) -> None:
        chunks.append(chunk)
        if len(chunks) == number:
            act()

    return chunks, watch


def serving_now(*replicas: Replica) -> Replica:
    (found,) = [replica for replica in replicas if replica.verifier.sessions]
    return found


# ---- one verifier -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [(), ("dog",)])
async def test_a_verifier_resumes_from_any_byte(stop: tuple[str, ...]):
    engine = TextEngine()
    async with serving(engine) as (verifier, address):
        options = {"max_tokens": 60, "stop": [text.encode() for text in stop]}
        text, finished = await text_of(address, request(SAMPLING, **options))
        for cut in range(0, len(text) + 1, 3):
            rest, again = await text_of(address, request(SAMPLING, received=text[:cut], **options))
            assert text[:cut] + rest == text
            assert again.completion_tokens == finished.completion_tokens
            assert again.replayed_tokens <= again.completion_tokens and (again.replayed_tokens > 0) == (cut > 0)
        assert verifier.committed_tokens < 25 * finished.completion_tokens, "replayed tokens are not counted twice"
        await baseline(verifier, engine)


async def test_drafters_come_when_the_replay_is_over():
    engine = TextEngine(step_seconds=0.02)
    async with serving(engine) as (verifier, address), drafting(address), drafting(address):
        await drafters(verifier, 2)
        text, _ = await text_of(address, request(SAMPLING, max_tokens=100, ignore_end=True))
        engine.gate.clear()
        asked = request(SAMPLING, max_tokens=100, ignore_end=True, received=text[:-60])
        resuming = asyncio.create_task(text_of(address, asked))
        await eventually(lambda: verifier.sessions)
        assert verifier.sessions[0].session.replaying and not verifier.sessions[0].links
        engine.gate.set()
        rest, finished = await resuming
        assert text[:-60] + rest == text
        assert 0 < finished.speculation.accepted_tokens < 100 - finished.replayed_tokens
        assert finished.speculation.steps + finished.speculation.accepted_tokens == 100 - finished.replayed_tokens
        await baseline(verifier, engine)


async def test_bytes_of_another_text_are_refused_and_leave_nothing():
    engine = TextEngine()
    async with serving(engine) as (verifier, address), Client(address) as client:
        with pytest.raises(DivergedError, match="differs"):
            async for _ in client._generate(request(SAMPLING, received=b"once upon a time")):
                pass
        await baseline(verifier, engine)


async def test_a_client_resumes_at_a_restarted_verifier_if_asked():
    whole = await expected()
    engine = TextEngine(step_seconds=0.01)
    async with contextlib.AsyncExitStack() as first, contextlib.AsyncExitStack() as second:
        _, address = await first.enter_async_context(serving(engine))

        async def restart() -> None:
            await first.aclose()
            await second.enter_async_context(serving(engine, listen=address))

        restarts: list[asyncio.Task[None]] = []
        chunks, watch = at_chunk(10, lambda: restarts.append(asyncio.create_task(restart())))
        async with Client(address) as client:
            text = await client.complete(PROMPT, **ASK, on_chunk=watch, resume=True)
        assert text.data == whole.data == b"".join(run.text for chunk in chunks for run in chunk.runs)
        assert text.token_ids == whole.token_ids == [token for chunk in chunks for token in chunk.token_ids]
        assert text.resumes == 1 and 0 < text.replayed_tokens < 120
        await restarts[0]
    assert engine.open_slots == 0


async def test_another_model_at_the_address_does_not_write_the_text_on():
    other = TextEngine(step_seconds=0.01)
    other.dtype_name = "bfloat16"
    async with contextlib.AsyncExitStack() as first, contextlib.AsyncExitStack() as second:
        _, address = await first.enter_async_context(serving(TextEngine(step_seconds=0.01)))

        async def replace() -> None:
            await first.aclose()
            await second.enter_async_context(serving(other, listen=address))

        replacing: list[asyncio.Task[None]] = []
        _, watch = at_chunk(10, lambda: replacing.append(asyncio.create_task(replace())))
        async with Client(address) as client:
            with pytest.raises(Exception, match="begun by.*float32") as caught:
                await client.complete(PROMPT, **ASK, on_chunk=watch, resume=True, patience=2)
        assert "bytes of text received" in str(caught.value)
        await replacing[0]
    assert other.open_slots == 0


async def test_without_resume_a_stopping_verifier_says_so():
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
        with pytest.raises(ConnectionFailedError):
            await client.complete(PROMPT, **ASK, resume=True)
    assert engine.open_slots == 0


async def test_session_lines_carry_the_session(caplog: pytest.LogCaptureFixture):
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


# ---- a fleet ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stopped", "drained", "handed over"])
async def test_a_text_outlives_its_verifier(how: str):
    whole = await expected()
    async with (
        coordinating() as (server, at),
        replica(at, "a") as a,
        replica(at, "b") as b,
        FleetClient(at) as client,
        CoordinatorClient(at) as control,
    ):
        await registered(server, 2)
        tasks: list[asyncio.Task] = []

        def lose() -> None:
            lost = serving_now(a, b)
            doing = {
                "stopped": lost.stop,
                "drained": lambda: control.drain(str(lost.address)),
                "handed over": lambda: control.drain(str(lost.address), hand_over=True),
            }[how]
            tasks.append(asyncio.create_task(doing()))

        chunks, watch = at_chunk(10, lose)
        text = await client.complete(PROMPT, **ASK, on_chunk=watch)
        await asyncio.gather(*tasks)
        assert text.data == whole.data and text.token_ids == whole.token_ids
        assert text.data == b"".join(run.text for chunk in chunks for run in chunk.runs)
        assert text.resumes == (0 if how == "drained" else 1)
        if how != "stopped":
            await eventually(lambda: [replica.verifier.draining for replica in (a, b)].count(True) == 1)
            left = b if a.verifier.draining else a
            await client.complete(PROMPT, **ASK, on_chunk=at_chunk(1, lambda: serving_now(left))[1])
        for kept in (a, b):
            await baseline(kept.verifier, kept.engine)


async def test_the_coordinator_dies_and_then_the_verifier():
    whole = await expected()
    async with contextlib.AsyncExitStack() as steering:
        server, at = await steering.enter_async_context(coordinating())
        async with replica(at, "a") as a, replica(at, "b") as b, FleetClient(at) as client:
            await registered(server, 2)
            tasks: list[asyncio.Task[None]] = []

            async def lose_both() -> None:
                await steering.aclose()
                await serving_now(a, b).stop()

            _, watch = at_chunk(10, lambda: tasks.append(asyncio.create_task(lose_both())))
            text = await client.complete(PROMPT, **ASK, on_chunk=watch)
            await asyncio.gather(*tasks)
            assert text.data == whole.data and text.resumes == 1
            # A new text finds the one that is left, too.
            assert (await client.complete(PROMPT, **ASK)).data == whole.data


async def test_the_only_verifier_comes_back_in_time():
    whole = await expected()
    async with coordinating() as (server, at), contextlib.AsyncExitStack() as later, FleetClient(at) as client:
        first = await later.enter_async_context(replica(at, "a"))
        await registered(server, 1)
        tasks: list[asyncio.Task[None]] = []

        async def restart() -> None:
            await first.stop()
            await asyncio.sleep(0.5)
            await later.enter_async_context(replica(at, "a2"))

        _, watch = at_chunk(10, lambda: tasks.append(asyncio.create_task(restart())))
        text = await client.complete(PROMPT, **ASK, on_chunk=watch)
        assert text.data == whole.data and text.resumes == 1
        await asyncio.gather(*tasks)


async def test_patience_ends_with_what_happened():
    async with coordinating() as (server, at), replica(at, "a") as a, FleetClient(at, patience=0.5) as client:
        await registered(server, 1)
        tasks: list[asyncio.Task[None]] = []
        _, watch = at_chunk(10, lambda: tasks.append(asyncio.create_task(a.stop())))
        with pytest.raises((DrainingError, ConnectionFailedError), match=r"gave up after.*bytes of text received"):
            await client.complete(PROMPT, **ASK, on_chunk=watch)
        await asyncio.gather(*tasks)
        assert a.engine.open_slots == 0


async def test_full_verifiers_are_waited_for():
    async with coordinating() as (server, at), replica(at, "a", max_sessions=1) as a, FleetClient(at) as client:
        await registered(server, 1)
        texts = await asyncio.gather(*(client.complete(PROMPT, **SHORT) for _ in range(3)))
        assert len({text.data for text in texts}) == 1
        await baseline(a.verifier, a.engine)
        async with FleetClient(at, patience=0.3) as hasty:
            a.engine.step_seconds = 0.05
            running_text = asyncio.create_task(client.complete(PROMPT, **SHORT))
            await eventually(lambda: a.verifier.sessions)
            with pytest.raises(LimitExceededError, match="gave up"):
                await hasty.complete(PROMPT, **SHORT)
            await running_text


async def test_nobody_is_there():
    async with coordinating() as (_, at), FleetClient(at) as client:
        with pytest.raises(NoVerifierError, match="no verifier is registered"):
            await client.complete(PROMPT)
    async with FleetClient(at) as client:
        with pytest.raises(ConnectionFailedError, match="no coordinator answers"):
            await client.complete(PROMPT)


async def test_a_bad_request_is_not_taken_from_one_to_the_next():
    async with coordinating() as (server, at), replica(at, "a") as a, FleetClient(at) as client:
        await registered(server, 1)
        with pytest.raises(InputError, match="logit_bias"):
            await client.complete(PROMPT, sampling=SamplingParams(logit_bias={10**6: 1.0}))
        await baseline(a.verifier, a.engine)


async def test_where_no_verifier_writes_the_text_on_it_begins_anew_only_if_asked():
    """The other replica says that it is the same and is not: a processor that rounds in another way."""
    async with coordinating() as (server, at), contextlib.AsyncExitStack() as others:
        for asked in (False, True):
            async with replica(at, "a") as a, FleetClient(at, patience=5) as client:
                await registered(server, 1)
                tasks: list[asyncio.Task] = []

                async def replace(a: Replica = a) -> None:
                    other = TextEngine(salt=3, step_seconds=0.01)
                    await others.enter_async_context(replica(at, "b", engine=other))
                    await a.stop()

                chunks, watch = at_chunk(20, lambda: tasks.append(asyncio.create_task(replace())))
                asking = client.complete(PROMPT, **ASK, on_chunk=watch, on_restart=chunks.clear if asked else None)
                if asked:
                    text = await asking
                    assert text.data == b"".join(run.text for chunk in chunks for run in chunk.runs)
                    assert text.resumes == 0 and text.completion_tokens == 120
                else:
                    with pytest.raises(DivergedError):
                        await asking
                await asyncio.gather(*tasks)
                await others.aclose()
            await eventually(lambda: not server.fleet.registry.verifiers)


async def test_an_old_verifier_is_not_asked_to_resume():
    """One that does not know the field would send the text from its beginning."""
    from dragoman.transcript import Transcript, generate_request

    transcript = Transcript(generate_request(PROMPT), lambda chunk: None)
    transcript.next_request()
    transcript.take(pb.GenerateResponse(started=pb.GenerateStarted(session="s")))
    transcript.take(pb.GenerateResponse(chunk=pb.TextChunk(runs=[pb.TextRun(text=b"ab")], token_ids=[1])))
    assert transcript.next_request().received == b"ab"
    with pytest.raises(Exception, match="too old to resume"):
        transcript.take(pb.GenerateResponse(started=pb.GenerateStarted(session="t")))
