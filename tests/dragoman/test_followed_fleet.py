"""A gateway's backend whose coordinator, and whose verifiers, come back at other addresses."""

from __future__ import annotations

import asyncio

import pytest

from dragoman.fleet_client import FleetClient
from dragoman.gateway_backend import followed_fleet
from speculation.errors import ConnectionFailedError, InputError
from speculation.protocol.generation import GenerationRequest
from speculation.protocol.messages import Prompt
from speculation.sampling.params import SamplingParams
from tests.support.coordinators import coordinating
from tests.support.gateways import joined, named, registered
from transport.address import Address
from transport.security import Security

REQUEST = GenerationRequest(prompt=Prompt(text="a story: "), sampling=SamplingParams(seed=9), max_tokens=20)


async def test_a_coordinator_that_moves_is_followed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dragoman.gateway_backend.FOLLOW_SECONDS", 0.02)
    answers: list[Address | Exception] = []
    asked = 0

    async def where() -> Address:
        nonlocal asked
        asked += 1
        found = answers[0] if len(answers) == 1 else answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async with coordinating() as (first, at), joined(at, named("here"), "a"):
        await registered(first, 1)
        answers.append(at)
        async with followed_fleet(where) as backend:
            assert [model.name for model in await backend.models()] == ["here"]
            async with coordinating() as (second, elsewhere), joined(elsewhere, named("there"), "b"):
                await registered(second, 1)
                # It is started anew, which is no reason to give up, whatever that looks like.
                answers[:] = [ConnectionFailedError("it does not say"), OSError("odd"), elsewhere]
                async with asyncio.timeout(60):
                    while [model.name for model in await backend.models()] != ["there"]:
                        await asyncio.sleep(0.01)
                whole = await backend.write(
                    "there", REQUEST, on_chunk=lambda chunk: None, on_started=lambda started: None, on_restart=None
                )
                assert whole.completion_tokens == 20
        ended = asked
        await asyncio.sleep(0.1)
        assert asked == ended, "nobody is asked any more"


async def test_who_does_not_say_at_first_is_an_error():
    async def where() -> Address:
        raise ConnectionFailedError("the cluster has no coordinator")

    with pytest.raises(ConnectionFailedError, match="no coordinator"):
        async with followed_fleet(where):
            pass


async def test_a_move_to_where_one_may_not_dial_changes_nothing():
    async with coordinating() as (server, at), joined(at, named("here"), "a"):
        await registered(server, 1)
        async with FleetClient(at, security=Security()) as client:
            with pytest.raises(InputError, match="would not be encrypted"):
                await client.move(Address("192.0.2.1", 50060))
            assert client.coordinator == at and [model.name for model in await client.models()] == ["here"]
