"""The fault proxy, over real sockets: what it delays, holds and breaks, and that it keeps bytes and their order.

Times are checked as lower bounds only. That something does not pass is checked by a short wait, which a slow machine
can only make pass too easily.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Literal

import pytest

from benchmarks.fault_proxy import (
    BYTES_PER_SECOND,
    MAX_CHUNK,
    MAX_IN_FLIGHT,
    SECONDS,
    FaultProxy,
    LinkConditions,
    endpoint,
    quantity,
)
from speculation.errors import InputError
from tests.support.service_drivers import PATIENCE

CLEAR = LinkConditions(0.0)
QUIET = 0.05  # seconds in which nothing may come


class Echo:
    """A server that sends back what it gets, and remembers it."""

    def __init__(self) -> None:
        self.received = b""
        self.ends: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                self.received += data
                writer.write(data)
                await writer.drain()
            self.ends.append("eof")
        except ConnectionResetError:
            self.ends.append("reset")
        finally:
            await close(writer)


class Client:
    """One connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, data: bytes) -> bytes:
        self.writer.write(data)
        return await self.reader.readexactly(len(data))

    async def hears_nothing(self) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(self.reader.read(1), QUIET)


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):  # reset before
        await writer.wait_closed()


@asynccontextmanager
async def proxied(conditions: LinkConditions = CLEAR) -> AsyncIterator[tuple[FaultProxy, Echo]]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    async with server, asyncio.timeout(60):
        async with FaultProxy("127.0.0.1", server.sockets[0].getsockname()[1], conditions) as proxy:
            yield proxy, echo
        # The echo's tasks see the reset that leaving sends.
        await until(lambda: len(asyncio.all_tasks()) == 1)


@asynccontextmanager
async def connected(proxy: FaultProxy) -> AsyncIterator[Client]:
    host, port = proxy.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Client(reader, writer)
    finally:
        await close(writer)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.002)


async def test_no_byte_arrives_before_its_delay() -> None:
    loop = asyncio.get_running_loop()
    async with proxied(LinkConditions(0.05)) as (proxy, _), connected(proxy) as client:
        for _ in range(3):
            start = loop.time()
            assert await client.ask(b"ping") == b"ping"
            assert loop.time() - start >= 2 * 0.05
        proxy.set(LinkConditions(0.08, jitter=0.01))
        start = loop.time()
        await client.ask(b"ping")
        assert loop.time() - start >= 2 * 0.08


async def test_the_rate_is_the_links_and_not_each_connections() -> None:
    loop = asyncio.get_running_loop()
    conditions = LinkConditions(0.0, bytes_per_second=100_000)
    async with proxied(conditions) as (proxy, _), connected(proxy) as one, connected(proxy) as two:
        start = loop.time()
        await asyncio.gather(one.ask(bytes(10_000)), two.ask(bytes(10_000)))
        assert loop.time() - start >= 20_000 / 100_000


async def test_content_and_order_survive_jitter_and_a_changing_link() -> None:
    rng = random.Random(7)
    chunks = [rng.randbytes(rng.choice((1, 9, 100, 3000))) for _ in range(400)]
    async with proxied(LinkConditions(0.001, jitter=0.02)) as (proxy, echo), connected(proxy) as client:
        reading = asyncio.ensure_future(client.reader.readexactly(sum(map(len, chunks))))
        for number, chunk in enumerate(chunks):
            client.writer.write(chunk)
            if number % 20 == 0:
                await asyncio.sleep(0.001)
                proxy.set(LinkConditions(rng.uniform(0, 0.01), jitter=0.02))
        assert await reading == b"".join(chunks)
        assert echo.received == b"".join(chunks)


async def test_a_delay_does_not_limit_what_is_in_flight() -> None:
    """All of it is under way before the first byte is delivered, so a delay costs no throughput."""
    async with proxied(LinkConditions(3600.0)) as (proxy, _), connected(proxy) as client:
        client.writer.write(bytes(1 << 20))
        await until(lambda: proxy.in_flight == 1 << 20)
        assert proxy.bytes_up == 0


async def test_memory_is_bounded() -> None:
    async with proxied(LinkConditions(3600.0)) as (proxy, _), connected(proxy) as client:
        client.writer.write(bytes(4 * MAX_IN_FLIGHT))
        await until(lambda: proxy.in_flight > MAX_IN_FLIGHT - (1 << 20))
        await asyncio.sleep(QUIET)
        assert proxy.in_flight <= MAX_IN_FLIGHT + MAX_CHUNK
        client.writer.transport.abort()


async def test_what_waits_for_room_passes_in_the_end() -> None:
    data = random.Random(3).randbytes(3 * MAX_IN_FLIGHT)
    async with proxied() as (proxy, _), connected(proxy) as client:
        await client.ask(b"ping")
        proxy.cut()
        client.writer.write(data)
        await until(lambda: proxy.in_flight > MAX_IN_FLIGHT - (1 << 20))
        proxy.restore()
        assert await client.reader.readexactly(len(data)) == data
        assert proxy.bytes_up == proxy.bytes_down == len(data) + 4


async def test_counters() -> None:
    async with proxied() as (proxy, _):
        for number in range(3):
            async with connected(proxy) as client:
                await client.ask(bytes(100))
            assert proxy.connections == number + 1
        assert (proxy.bytes_up, proxy.bytes_down, proxy.in_flight) == (300, 300, 0)


async def test_the_end_of_one_direction_leaves_the_other_open() -> None:
    loop = asyncio.get_running_loop()
    async with proxied(LinkConditions(0.05)) as (proxy, echo), connected(proxy) as client:
        start = loop.time()
        client.writer.write(b"last words")
        client.writer.write_eof()
        assert await client.reader.read() == b"last words"
        assert loop.time() - start >= 2 * 0.05
        assert echo.ends == ["eof"]


async def test_a_cut_holds_both_directions_and_what_is_new() -> None:
    async with proxied() as (proxy, echo), connected(proxy) as client:
        await client.ask(b"before")
        proxy.cut()
        client.writer.write(b"held")
        async with connected(proxy) as late:
            late.writer.write(b"late")
            await asyncio.gather(client.hears_nothing(), late.hears_nothing())
            assert echo.received == b"before"
            proxy.restore()
            assert await client.reader.readexactly(4) == b"held"
            assert await late.reader.readexactly(4) == b"late"


async def test_a_cut_hides_that_an_end_went_away() -> None:
    async with proxied() as (proxy, echo):
        async with connected(proxy) as client:
            await client.ask(b"ping")
            proxy.cut()
            client.writer.transport.abort()
        await asyncio.sleep(QUIET)
        assert echo.ends == []
        proxy.restore()
        await until(lambda: len(echo.ends) == 1)


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_half_open_holds_one_direction(direction: Literal["up", "down"]) -> None:
    async with proxied() as (proxy, echo), connected(proxy) as client:
        await client.ask(b"before ")
        proxy.half_open(direction)
        client.writer.write(b"held")
        if direction == "down":
            await until(lambda: echo.received == b"before held")
        await client.hears_nothing()
        assert echo.received == (b"before " if direction == "up" else b"before held")
        proxy.restore()
        assert await client.reader.readexactly(4) == b"held"


async def test_reset_reaches_both_ends_and_spares_later_connections() -> None:
    async with proxied() as (proxy, echo):
        async with connected(proxy) as client:
            await client.ask(b"ping")
            proxy.reset()
            with pytest.raises(ConnectionResetError):
                await client.reader.read(1)
        await until(lambda: echo.ends == ["reset"])
        async with connected(proxy) as client:
            assert await client.ask(b"ping") == b"ping"


async def test_an_upstream_that_refuses_resets_the_client() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    async with FaultProxy("127.0.0.1", port, CLEAR) as proxy:
        with pytest.raises(ConnectionResetError):
            async with connected(proxy) as client:
                await client.reader.readexactly(1)


async def test_refuse() -> None:
    async with proxied() as (proxy, echo):
        proxy.refuse()
        # The reset may come while the client still connects.
        with pytest.raises(ConnectionResetError):
            async with connected(proxy) as client:
                await client.reader.readexactly(1)
        assert proxy.connections == 0
        proxy.refuse(False)
        async with connected(proxy) as client:
            assert await client.ask(b"ping") == b"ping"
        assert echo.received == b"ping"


async def test_leaving_closes_what_is_open() -> None:
    async with proxied() as (proxy, _), connected(proxy) as held, connected(proxy) as client:
        await held.ask(b"ping")
        proxy.cut()
        await client.hears_nothing()


@pytest.mark.parametrize("value", [-0.001, math.inf, math.nan])
@pytest.mark.parametrize("field", ["one_way_delay", "jitter", "bytes_per_second"])
def test_conditions_name_the_field_that_is_wrong(field: str, value: float) -> None:
    with pytest.raises(InputError) as caught:
        LinkConditions(**{"one_way_delay": 0.0, field: value})
    assert caught.value.field == field


def test_a_rate_is_above_zero() -> None:
    with pytest.raises(InputError, match="bytes_per_second"):
        LinkConditions(0.0, bytes_per_second=0.0)


def test_quantities_and_endpoints() -> None:
    assert quantity("delay", "20ms", SECONDS) == quantity("delay", "0.02s", SECONDS) == 0.02
    assert quantity("bandwidth", "10mbit", BYTES_PER_SECOND) == 1_250_000
    assert endpoint("listen", "127.0.0.1:0") == ("127.0.0.1", 0)


@pytest.mark.parametrize("text", ["", "20", "ms", "-1ms", "20mbit"])
def test_a_quantity_that_is_none(text: str) -> None:
    with pytest.raises(InputError, match="delay"):
        quantity("delay", text, SECONDS)


@pytest.mark.parametrize("text", ["", "127.0.0.1", ":1", "host:port", "127.0.0.1:65536"])
def test_an_endpoint_that_is_none(text: str) -> None:
    with pytest.raises(InputError, match="upstream"):
        endpoint("upstream", text)
