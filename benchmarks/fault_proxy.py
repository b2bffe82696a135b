"""A TCP proxy that puts a bad or distant link between a gRPC client and its server, without root.

It never loses or reorders the bytes of a connection: where a real network would drop packets, it holds them. A byte is
never early and, on an idle machine, about 1 ms late. The TCP handshake is not delayed.

    python -m benchmarks.fault_proxy --upstream 127.0.0.1:50061 --listen 127.0.0.1:50062 --delay 20ms --bandwidth 10mbit
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import socket
import struct
from dataclasses import dataclass
from typing import Literal, Self

from benchmarks.command import run_command
from speculation.errors import InputError

MAX_IN_FLIGHT = 4 << 20  # bytes of one direction of one connection; above it the proxy stops to read
MAX_CHUNK = 64 << 10
SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
BYTES_PER_SECOND = {"bit": 1 / 8, "kbit": 1e3 / 8, "mbit": 1e6 / 8, "gbit": 1e9 / 8}


@dataclass(frozen=True)
class LinkConditions:
    """What each direction does to bytes: seconds of delay and of jitter (uniform from 0; a later byte never overtakes
    an earlier one) and the rate, which all connections share (None: no limit). Raises InputError, naming the field."""

    one_way_delay: float
    jitter: float = 0.0
    bytes_per_second: float | None = None

    def __post_init__(self) -> None:
        for field, value in vars(self).items():
            if field == "bytes_per_second" and not (value is None or 0 < value < math.inf):
                raise InputError(field, value, "not a rate", remedy="give a finite number above 0, or None")
            if field != "bytes_per_second" and not 0 <= value < math.inf:
                raise InputError(field, value, "not a time in seconds", remedy="give a finite number, 0 or more")


@dataclass
class _Link:
    """One direction of the link, for all connections."""

    conditions: LinkConditions
    gate: asyncio.Event
    free_at: float = 0.0  # when the last byte that entered has been sent
    passed: int = 0

    async def pass_at(self, due: float) -> None:
        """Return when the time has come and nothing holds the link."""
        while (wait := due - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(wait)
        while not self.gate.is_set():  # it may be shut again between the event and this task's turn
            await self.gate.wait()


class _Stream:
    """One direction of one connection."""

    def __init__(self, link: _Link, source: socket.socket, sink: socket.socket) -> None:
        self.link, self.source, self.sink = link, source, sink
        self.in_flight, self._last_due = 0, 0.0
        self._queue: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue()  # b"": end; None: reset
        self._room = asyncio.Event()

    def due(self, size: int) -> float:
        """When the last of `size` bytes that enter now comes out, in seconds of the loop's clock."""
        link, sent = self.link.conditions, asyncio.get_running_loop().time()
        if link.bytes_per_second is not None:
            sent = self.link.free_at = max(sent, self.link.free_at) + size / link.bytes_per_second
        self._last_due = max(self._last_due, sent + link.one_way_delay + random.uniform(0, link.jitter))
        return self._last_due

    async def read(self) -> None:
        """Stamp what comes in, until the end of the stream; pause while too much is in flight."""
        data: bytes | None = b"-"
        while data:
            while self.in_flight + 256 * self._queue.qsize() > MAX_IN_FLIGHT:  # 256: about what a tiny chunk costs
                self._room.clear()
                await self._room.wait()
            # A slow link delivers packet by packet, so a chunk is about 1 ms of it.
            chunk = max(1460, int(min(MAX_CHUNK, (self.link.conditions.bytes_per_second or math.inf) / 1000)))
            try:
                data = await asyncio.get_running_loop().sock_recv(self.source, chunk)
            except OSError:
                data = None
            self.in_flight += len(data or b"")
            self._queue.put_nowait((self.due(len(data or b"")), data))

    async def deliver(self, back: _Stream) -> None:
        """Write each chunk when it is due. Raises OSError when an end was reset and the other should hear of it; where
        that is the sink, the news travels by `back`, the other direction."""
        data: bytes | None = None
        while data != b"":
            due, data = await self._queue.get()
            await self.link.pass_at(due)
            if data is None:
                raise ConnectionResetError
            try:
                await asyncio.get_running_loop().sock_sendall(self.sink, data)
                if not data:
                    self.sink.shutdown(socket.SHUT_WR)
            except OSError:
                await back.link.pass_at(back.due(0))
                raise
            self.in_flight -= len(data)
            self.link.passed += len(data)
            self._room.set()


class FaultProxy:
    """Proxy from a port of this machine to `upstream`; an async context manager. "up" is from the client to upstream,
    "down" the other way. Entering raises OSError if `listen` cannot be bound (port 0: a free one); leaving resets what
    is open. Counts the connections accepted, the bytes delivered, and those in flight: read and not yet delivered."""

    def __init__(
        self, upstream_host: str, upstream_port: int, conditions: LinkConditions, listen: str = "127.0.0.1:0"
    ) -> None:
        self.connections, self._refusing = 0, False
        self._upstream, self._listen = (upstream_host, upstream_port), endpoint("listen", listen)
        self._up, self._down = (_Link(conditions, asyncio.Event()) for _ in range(2))
        self._open: dict[asyncio.Task[None], tuple[_Stream, _Stream]] = {}
        self.restore()

    async def __aenter__(self) -> Self:
        self._listener = socket.create_server(self._listen)
        self._listener.setblocking(False)
        self.address = ":".join(map(str, self._listener.getsockname()))
        asyncio.get_running_loop().add_reader(self._listener, self._accept)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        self.reset()
        await asyncio.gather(*self._open, return_exceptions=True)

    @property
    def bytes_up(self) -> int:
        return self._up.passed

    @property
    def bytes_down(self) -> int:
        return self._down.passed

    @property
    def in_flight(self) -> int:
        return sum(stream.in_flight for streams in self._open.values() for stream in streams)

    def set(self, conditions: LinkConditions) -> None:
        """Change the link for the bytes that enter from now on; those in flight keep their time."""
        self._up.conditions = self._down.conditions = conditions

    def cut(self) -> None:
        """A dead network: nothing passes, connections stay open, new ones hang (a half-sent chunk may still leave)."""
        self.half_open("up")
        self.half_open("down")

    def half_open(self, direction: Literal["up", "down"]) -> None:
        """Hold one direction, silently; new connections hang too, as their handshake could not end."""
        (self._up if direction == "up" else self._down).gate.clear()

    def restore(self) -> None:
        """End `cut` and `half_open`: what was held passes."""
        self._up.gate.set()
        self._down.gate.set()

    def reset(self) -> None:
        """Abort all connections with RST at both ends, in the next turns of the event loop."""
        for task in self._open:
            task.cancel()

    def refuse(self, refusing: bool = True) -> None:
        """Whether new connections are reset as soon as they come."""
        self._refusing = refusing

    def _accept(self) -> None:
        client, server = self._listener.accept()[0], socket.socket()
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing sends RST
        streams = (_Stream(self._up, client, server), _Stream(self._down, server, client))
        task = asyncio.get_running_loop().create_task(self._relay(*streams))
        self._open[task] = streams
        # A callback, not the end of _relay: a task that is cancelled before its first turn never gets there.
        task.add_done_callback(self._close)

    def _close(self, task: asyncio.Task[None]) -> None:
        for stream in self._open.pop(task):
            stream.source.close()

    async def _relay(self, up: _Stream, down: _Stream) -> None:
        """Carry one connection to its end."""
        if self._refusing:
            return
        self.connections += 1
        try:
            await self._up.pass_at(0)
            await self._down.pass_at(0)
            await asyncio.get_running_loop().sock_connect(up.sink, self._upstream)
            async with asyncio.TaskGroup() as group:
                for stream, back in ((up, down), (down, up)):
                    group.create_task(stream.read())
                    group.create_task(stream.deliver(back))
            for stream in (up, down):  # both ended in order, so closing need not send RST
                stream.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
        except* OSError:
            pass  # refused by upstream, or reset by an end: the close tells the other


def quantity(field: str, text: str, units: dict[str, float]) -> float:
    """The number in `text`, such as "20ms", times its unit. Raises InputError."""
    if not (match := re.fullmatch(r"(\d+(?:\.\d+)?) ?([a-z]+)", text.strip().lower())) or match[2] not in units:
        raise InputError(field, text, "not a number and its unit", remedy=f"units: {', '.join(units)}")
    return float(match[1]) * units[match[2]]


def endpoint(field: str, text: str) -> tuple[str, int]:
    """Host and port of "host:port". Raises InputError."""
    if not (match := re.fullmatch(r"([^:]+):(\d{1,5})", text)) or int(match[2]) > 65535:
        raise InputError(field, text, "not host:port", remedy="for example 127.0.0.1:50061")
    return match[1], int(match[2])


def main(
    upstream: str = "", listen: str = "127.0.0.1:0", delay: str = "0ms", jitter: str = "0ms", bandwidth: str = ""
) -> None:
    """Stand between clients and the server UPSTREAM (host:port) until interrupted, and print the address for
    clients. DELAY (20ms, 0.02s), JITTER and BANDWIDTH (10mbit; without it no limit) are of each direction."""
    rate = quantity("bandwidth", bandwidth, BYTES_PER_SECOND) if bandwidth else None
    conditions = LinkConditions(quantity("delay", delay, SECONDS), quantity("jitter", jitter, SECONDS), rate)

    async def serve() -> None:
        async with FaultProxy(*endpoint("upstream", upstream), conditions, listen) as proxy:
            print(proxy.address, flush=True)
            await asyncio.Event().wait()

    asyncio.run(serve())


if __name__ == "__main__":
    run_command(main)
