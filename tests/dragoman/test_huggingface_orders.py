"""What a fleet orders, and what it may not: texts of the program that holds the model stay there, and go on."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
import torch

from coordinator.server import CoordinatorServer
from dragoman import Client, DrainingError, RemoteDrafting, SessionError
from protos.dragoman.v1 import dragoman_pb2 as pb
from tests.support.coordinators import coordinating
from tests.support.held_models import Held, hold
from transport.limits import PROTOCOL_VERSION


@pytest.fixture(scope="module")
def held(tiny_llama: Path) -> Held:
    return hold(tiny_llama)


class Pauses:
    """A stopping criterion: in mid-text it waits for whoever looks on."""

    def __init__(self) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        if not self.reached.is_set():
            self.reached.set()
            self.go_on.wait(60)
        return torch.tensor([False])


async def order(server: CoordinatorServer, **wanted: bool) -> None:
    """Of the only verifier; it has had some reports' time to carry it out."""
    (member,) = server.fleet.registry.verifiers
    request = pb.DrainRequest(protocol_version=PROTOCOL_VERSION, verifier=member.instance, **wanted)
    server.fleet.drains.decide(request)
    await asyncio.sleep(0.5)


async def test_no_order_of_a_fleet_opens_the_model_to_clients_or_ends_its_texts(held: Held):
    pauses = Pauses()
    async with coordinating() as (server, at):
        drafting = RemoteDrafting(held.model, held.tokenizer, "127.0.0.1:0", coordinator=str(at))
        await asyncio.to_thread(drafting.__enter__)
        try:
            options = {"custom_generate": drafting, "max_new_tokens": 24, "stopping_criteria": [pauses]}
            writing = asyncio.create_task(held.write("The heron", **options))
            await asyncio.to_thread(pauses.reached.wait, 60)
            while not server.fleet.registry.verifiers:
                await asyncio.sleep(0.02)
            await order(server, hand_over=True)
            await order(server, undo=True)
            async with Client(drafting.address) as client:
                with pytest.raises(DrainingError):
                    await client.complete("The heron", max_tokens=4)
            pauses.go_on.set()
            written = await writing
        finally:
            pauses.go_on.set()
            await asyncio.to_thread(drafting.close)
    assert torch.equal(written, await held.write("The heron", max_new_tokens=24))


async def test_closing_in_mid_text_ends_the_text_in_order(held: Held):
    pauses = Pauses()
    drafting = RemoteDrafting(held.model, held.tokenizer, "127.0.0.1:0")
    await asyncio.to_thread(drafting.__enter__)
    options = {"custom_generate": drafting, "max_new_tokens": 100, "stopping_criteria": [pauses]}
    writing = asyncio.create_task(held.write("The heron", **options))
    await asyncio.to_thread(pauses.reached.wait, 60)
    closing = asyncio.create_task(asyncio.to_thread(drafting.close))
    await asyncio.sleep(0.2)
    assert not closing.done(), "it waits for who is in the middle of it"
    pauses.go_on.set()
    with pytest.raises(SessionError, match="closed while the text was written"):
        await asyncio.wait_for(writing, 60)
    await asyncio.wait_for(closing, 60)
    with pytest.raises(SessionError, match="not open"):
        await held.write("The heron", custom_generate=drafting, max_new_tokens=4)
