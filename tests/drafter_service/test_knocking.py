"""Whether an attempt to connect began too early, told by connections beside it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from benchmarks.fault_proxy import FaultProxy, LinkConditions
from drafter_service import client, knocking
from drafter_service.dialling import Dialling
from drafter_service.knocking import Knocking
from tests.support.proxies import forget_proxies
from tests.support.service_drivers import PATIENCE, drafters, drafting, eventually, serving
from tests.support.text_engine import TextEngine
from transport import grpc_options
from transport.address import Address
from transport.backoff import Backoff
from transport.channels import open_channel

HOST = "127.0.0.1"


@pytest.fixture
def port() -> Iterator[socket.socket]:
    """Nobody listens at it yet."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        yield taken


@pytest.fixture
def silent(port: socket.socket) -> Iterator[socket.socket]:
    """Linux drops what would connect to it, as a lost network does, until somebody accepts."""
    port.listen(0)
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0.2)
            try:
                waiting.connect(port.getsockname())
            except TimeoutError:
                yield port
                return
        pytest.skip("here a full queue of connections drops none")


async def knocking_at(port: socket.socket) -> Knocking:
    found = Knocking(Address(HOST, port.getsockname()[1]))
    await found.look_up()
    return found


async def test_an_attempt_that_began_while_somebody_listens_is_not_lost(port: socket.socket):
    port.listen()
    assert not await asyncio.wait_for((await knocking_at(port)).attempt_lost(), PATIENCE)


async def test_one_that_began_before_is_lost_once_a_later_connection_stands(silent: socket.socket):
    """TCP sends what was lost again after a second, and after two more: the first knock has no answer by then."""
    asked = asyncio.create_task((await knocking_at(silent)).attempt_lost())
    await asyncio.sleep(1.3)
    assert not asked.done(), "nothing gets through"
    silent.listen(64)
    silent.accept()[0].close()
    assert await asyncio.wait_for(asked, PATIENCE)


async def test_where_it_is_not_known_where_to_knock_nothing_is_lost():
    assert not await asyncio.wait_for(Knocking(Address("nowhere.invalid", 1)).attempt_lost(), PATIENCE)


async def test_behind_a_proxy_nobody_knocks(monkeypatch: pytest.MonkeyPatch):
    forget_proxies(monkeypatch)
    monkeypatch.setenv("grpc_proxy", "http://127.0.0.1:9")
    beyond = Knocking(Address("198.18.0.1", 50061))
    await beyond.look_up()
    assert not await asyncio.wait_for(beyond.attempt_lost(), PATIENCE)


async def test_who_gives_up_leaves_nothing_behind(silent: socket.socket):
    before = asyncio.all_tasks()
    asked = asyncio.create_task((await knocking_at(silent)).attempt_lost())
    await asyncio.sleep(3 * knocking.KNOCK_SECONDS)
    assert len(asyncio.all_tasks() - before) > 2, "connections are being begun"
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert asyncio.all_tasks() == before


def test_the_attempt_after_one_that_was_lost_has_its_time():
    """Something may answer connections, and nothing else."""
    dialling, given_up = Dialling(Backoff()), []
    for attempt in range(6):
        dialling.begin(float(attempt))
        given_up.append(dialling.may_be_lost)
        if dialling.may_be_lost:
            dialling.lost()
            assert dialling.ended(attempt + 0.01) == 0.0
        else:
            assert dialling.ended(attempt + 0.01) > 0.1
    assert given_up == [True, False] * 3


async def test_a_drafter_begins_an_attempt_again_that_is_lost(monkeypatch: pytest.MonkeyPatch):
    """Which would have more time than this test; nor does anybody knock once a link stands."""
    attempts, knocks, is_back = 0, 0, asyncio.Event()

    class Lost(Knocking):
        async def attempt_lost(self) -> bool:
            nonlocal knocks
            knocks += 1
            try:
                await is_back.wait()
                return attempts > 1 and bool(self._places)
            finally:
                knocks -= 1

    def counted(*arguments: Any, **options: Any) -> grpc.aio.Channel:
        nonlocal attempts
        attempts += 1
        return open_channel(*arguments, **options)

    monkeypatch.setattr(client, "Knocking", Lost)
    monkeypatch.setattr(client, "open_channel", counted)
    for module, name in ((client, "VERIFIER_SILENCE_SECONDS"), (grpc_options, "CONNECT_SECONDS")):
        monkeypatch.setattr(module, name, 10 * PATIENCE)
    async with (
        serving(TextEngine()) as (verifier, address),
        FaultProxy(address.host, address.port, LinkConditions(0.0)) as proxy,
        drafting(Address.parse(proxy.address, field="verifier")) as drafter,
    ):
        await eventually(lambda: drafter.attached and not knocks)
        proxy.cut()
        proxy.reset()
        await eventually(lambda: attempts == 2 and knocks == 1)
        is_back.set()
        await eventually(lambda: attempts == 3 and not knocks)
        proxy.reset()  # whose connection began while nothing passed
        proxy.restore()
        await eventually(lambda: drafter.attached)
        await drafters(verifier, 1)
