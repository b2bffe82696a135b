"""Whether an attempt to connect began too early, told by connections beside it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from benchmarks.fault_proxy import FaultProxy, LinkConditions
from drafter_service import client, knocking
from drafter_service.knocking import Knocking
from tests.support.service_drivers import PATIENCE, drafters, drafting, eventually, serving
from tests.support.text_engine import TextEngine
from transport.address import Address

HOST = "127.0.0.1"


@pytest.fixture
def port() -> Iterator[socket.socket]:
    """Nobody listens at it yet."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        yield taken


def address_of(port: socket.socket) -> Address:
    return Address(HOST, port.getsockname()[1])


async def knocking_at(port: socket.socket) -> Knocking:
    found = Knocking(address_of(port))
    await found.look_up()
    return found


async def test_an_attempt_that_began_while_somebody_listens_is_not_lost(port: socket.socket):
    port.listen()
    assert not await asyncio.wait_for((await knocking_at(port)).attempt_lost(), PATIENCE)


async def test_one_that_began_before_is_lost_as_soon_as_somebody_listens(
    port: socket.socket, monkeypatch: pytest.MonkeyPatch
):
    """The kernel refuses here what a network would lose; that the first had no answer is the same."""
    monkeypatch.setattr(knocking, "KNOCK_SECONDS", 0.01)
    asked = asyncio.create_task((await knocking_at(port)).attempt_lost())
    await asyncio.sleep(0.1)
    assert not asked.done(), "nobody is there"
    port.listen()
    assert await asyncio.wait_for(asked, PATIENCE)


async def test_where_it_is_not_known_nobody_knocks():
    assert not await asyncio.wait_for(Knocking(Address("nowhere.invalid", 1)).attempt_lost(), PATIENCE)


async def test_behind_a_proxy_nobody_knocks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("grpc_proxy", "http://127.0.0.1:9")
    beyond = Knocking(Address("198.18.0.1", 50061))
    await beyond.look_up()
    assert not await asyncio.wait_for(beyond.attempt_lost(), PATIENCE)


async def test_who_gives_up_leaves_nothing_behind(port: socket.socket):
    before = asyncio.all_tasks()
    asked = asyncio.create_task((await knocking_at(port)).attempt_lost())
    await asyncio.sleep(0.05)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert asyncio.all_tasks() == before


async def test_a_drafter_begins_an_attempt_again_that_is_lost(monkeypatch: pytest.MonkeyPatch):
    """Nothing passes the proxy, so an attempt would take its two seconds: ten of them would take twenty."""
    given_up = 0

    class Lost(Knocking):
        async def attempt_lost(self) -> bool:
            nonlocal given_up
            if not cut:
                return await super().attempt_lost()
            given_up += 1
            return True

    monkeypatch.setattr(client, "Knocking", Lost)
    cut = False
    async with (
        serving(TextEngine()) as (verifier, address),
        FaultProxy(address.host, address.port, LinkConditions(0.0)) as proxy,
        drafting(Address.parse(proxy.address, field="verifier")) as drafter,
    ):
        await eventually(lambda: drafter.attached)
        cut = True
        proxy.cut()
        proxy.reset()
        await eventually(lambda: given_up >= 10)
        cut = False
        proxy.restore()
        await drafters(verifier, 1)
        assert drafter.attached
