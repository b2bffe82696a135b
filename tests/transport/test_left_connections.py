"""A link that ended leaves no connection behind, though Python does not look for circles of references for hours.

A frame that an error has passed holds what it was called with; an error that a task or a timeout holds, and that holds
such a frame, is a circle. On sockets of an hour's soak that was a descriptor more for every held process.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest

from benchmarks.fault_proxy import FaultProxy, LinkConditions
from drafter_service import client as drafter_client
from tests.support.coordinators import coordinating, joining, target
from tests.support.service_drivers import drafting, eventually, serving
from tests.support.text_engine import TextEngine
from transport import joining as transport_joining
from transport.address import Address

Made = list["weakref.ref[grpc.aio.Channel]"]


@pytest.fixture(autouse=True)
def no_search_for_circles() -> Iterator[None]:
    """Nor records of logs, which pytest keeps with the errors that they tell of."""
    gc.disable()
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    gc.enable()


@pytest.fixture
def channels(monkeypatch: pytest.MonkeyPatch) -> Made:
    """All that were opened by drafters and members, oldest first."""
    made: Made = []
    for module in (drafter_client, transport_joining):

        def opened(*given: Any, opening: Callable[..., grpc.aio.Channel] = module.open_channel, **more: Any) -> Any:
            channel = opening(*given, **more)
            made.append(weakref.ref(channel))
            return channel

        monkeypatch.setattr(module, "open_channel", opened)
    return made


@contextlib.asynccontextmanager
async def through_proxy(address: Address) -> AsyncIterator[tuple[FaultProxy, Address]]:
    async with FaultProxy(address.host, address.port, LinkConditions(0.0)) as proxy:
        yield proxy, Address.parse(proxy.address, field="proxy")


async def end_link(how: str, proxy: FaultProxy, lost: Callable[[], bool]) -> None:
    """Silently, or with a reset behind which nobody answers for a while."""
    if how == "silent":
        proxy.cut()
        await eventually(lost)
        proxy.restore()
    else:
        proxy.refuse()
        proxy.reset()
        await eventually(lost)
        await asyncio.sleep(0.5)
        proxy.refuse(False)


@pytest.mark.parametrize("how", ["silent", "refused"])
async def test_of_a_drafter(channels: Made, how: str):
    async with (
        serving(TextEngine()) as (_, address),
        through_proxy(address) as (proxy, near),
        drafting(near) as drafter,
    ):
        await eventually(lambda: drafter.attached)
        await end_link(how, proxy, lambda: not drafter.attached)
        await eventually(lambda: drafter.attached)
        assert len(channels) > 1
        await eventually(lambda: [made() is not None for made in channels].count(True) == 1, 10)


@pytest.mark.parametrize("how", ["silent", "refused"])
async def test_of_a_member(channels: Made, how: str):
    async with (
        coordinating() as (_, address),
        through_proxy(address) as (proxy, near),
        joining(near, target(), silence_seconds=1.0) as link,
    ):
        await eventually(lambda: link.joined)
        await end_link(how, proxy, lambda: not link.joined)
        await eventually(lambda: link.joined)
        assert len(channels) > 1
        await eventually(lambda: [made() is not None for made in channels].count(True) == 1, 10)
