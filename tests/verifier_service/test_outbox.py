"""What waits for a drafter that does not read: nothing is lost that nobody would miss, and it gets no more to do."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator

from hypothesis import given
from hypothesis import strategies as st

from dragoman.client import Client
from protos.dragoman.v1 import dragoman_pb2 as pb
from tests.support.long_text import ASK, PROMPT, expected
from tests.support.service_drivers import baseline, eventually, serving, stub_to
from tests.support.text_engine import TextEngine
from transport.limits import PROTOCOL_VERSION
from verifier_service.drafter_link import DrafterLink
from verifier_service.outbox import Outbox
from verifier_service.roster import Roster


def offer(number: int) -> pb.AssistResponse:
    return pb.AssistResponse(offer=pb.SessionOffer(session=str(number)))


def closed(number: int) -> pb.AssistResponse:
    return pb.AssistResponse(closed=pb.SessionClosed(session=str(number)))


def verdict(number: int) -> pb.AssistResponse:
    return pb.AssistResponse(verdict=pb.Verdict(base_offset=number))


def ping(number: int) -> pb.AssistResponse:
    return pb.AssistResponse(ping=pb.Ping(number=number))


async def all_of(outbox: Outbox) -> list[pb.AssistResponse]:
    found = []
    with contextlib.suppress(TimeoutError):
        while messages := await asyncio.wait_for(outbox.next_messages(), 0.01):
            found += messages
    return found


async def test_after_its_end_an_outbox_gives_what_waits_and_no_more():
    outbox = Outbox()
    outbox.send(ping(1))
    outbox.end()
    outbox.send(ping(2))
    assert await outbox.next_messages() == [ping(1), ping(2)]
    assert await outbox.next_messages() == []


@contextlib.asynccontextmanager
async def measuring(roster: Roster, link: DrafterLink) -> AsyncIterator[None]:
    task = asyncio.create_task(roster.keep_measuring(link))
    try:
        yield
    finally:
        task.cancel()


async def test_a_message_is_waited_for():
    outbox = Outbox()
    waiting = asyncio.create_task(outbox.next_messages())
    await asyncio.sleep(0)
    assert not waiting.done()
    outbox.send(ping(1))
    assert await waiting == [ping(1)]


async def test_the_newest_verdicts_stay_and_so_does_all_else():
    outbox = Outbox()
    outbox.send(offer(0))
    for number in range(1000):
        outbox.send(verdict(number))
    outbox.send(closed(0))
    found = await all_of(outbox)
    newest = [verdict(number) for number in range(1000 - (Outbox.MESSAGES - 2), 1000)]
    assert found == [offer(0), *newest, closed(0)]


@given(st.lists(st.sampled_from([offer, closed, verdict, ping]), max_size=600))
def test_order_is_kept_and_offers_are_never_lost(kinds):
    outbox = Outbox()
    sent = [kind(number) for number, kind in enumerate(kinds)]
    for message in sent:
        outbox.send(message)
    needed = [message for message in sent if message.WhichOneof("message") in ("offer", "closed")]
    assert outbox.full == (len(sent) >= Outbox.MESSAGES)
    found = asyncio.run(all_of(outbox))
    rest = iter(sent)
    assert all(message in rest for message in found), "in order, nothing twice"
    assert [message for message in found if message in needed] == needed
    assert len(found) == max(min(len(sent), Outbox.MESSAGES), len(needed))


async def test_who_does_not_keep_up_gets_no_session_until_it_does():
    engine = TextEngine(step_seconds=0.03)
    async with serving(engine) as (verifier, address), Client(address) as client:
        hello = pb.Hello(protocol_version=PROTOCOL_VERSION, name="slow", model="m", max_sessions=4, vocab_size=10)
        link = verifier.roster.attach(hello)
        while not link.outbox.full:
            link.outbox.send(pb.AssistResponse(drain=pb.Drain()))
        async with measuring(verifier.roster, link):
            text = asyncio.create_task(client.complete(PROMPT, **ASK))
            await eventually(lambda: verifier.sessions)
            assert not link.sessions
            read = await all_of(link.outbox)
            assert not any(message.HasField("offer") for message in read)
            await eventually(lambda: link.sessions)
            assert (await text).data == (await expected()).data
        verifier.roster.detach(link)
        assert any(message.HasField("offer") for message in await all_of(link.outbox))
        await baseline(verifier, engine)


async def test_a_drafter_that_goes_leaves_no_task_behind():
    complaints: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with serving(TextEngine()) as (verifier, address), stub_to(address) as stub:
        hello = pb.Hello(protocol_version=PROTOCOL_VERSION, name="d", model="m", max_sessions=4, vocab_size=10)
        for leave in ("cancel", "done_writing"):
            call = stub.Assist()
            await call.write(pb.AssistRequest(hello=hello))
            assert (await call.read()).HasField("welcome")
            await eventually(lambda: verifier.roster.links)
            if leave == "cancel":
                call.cancel()
            else:
                await call.done_writing()
            await eventually(lambda: not verifier.roster.links)
            await asyncio.sleep(0)
            gc.collect()
    assert not complaints
