"""A drafter's stream to a verifier, in memory and in virtual time: late, held up, cut, and told what is not true.

Both ends are the real ones; between them messages travel as bytes, as they would.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass

from drafter_service.draft_source import Drafter
from drafter_service.hello import hello_of
from drafter_service.verifier_link import VerifierLink
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import DragomanError
from tests.support.virtual_time import VirtualThread
from transport.bundles import bundled, unbundled
from verifier_service.roster import Roster


@dataclass(frozen=True)
class Weather:
    """Of one stream. ``latency`` and ``jitter``: seconds one way. ``repeats``, ``overtakes``, ``lies``: how often a
    message comes twice, late behind others, or with something in it that is not true."""

    latency: float = 0.0
    jitter: float = 0.0
    repeats: float = 0.0
    overtakes: float = 0.0
    lies: float = 0.0

    @classmethod
    def drawn(cls, chance: random.Random) -> Weather:
        """Mostly fine in each respect."""
        return cls(
            latency=chance.choice([0.0, 0.001, 0.02, 0.1]),
            jitter=chance.choice([0.0, 0.0, 0.05]),
            repeats=chance.choice([0.0, 0.0, 0.1]),
            overtakes=chance.choice([0.0, 0.0, 0.1]),
            lies=chance.choice([0.0, 0.0, 0.0, 0.2]),
        )


class Wire:
    """One direction. What is on it when it is cut is lost."""

    def __init__(self, weather: Weather, chance: random.Random, deliver: Callable[[bytes], None]) -> None:
        self._weather = weather
        self._chance = chance
        self._deliver = deliver
        self._last = 0.0  # nothing arrives before what was sent before
        self._stalled_until = 0.0
        self._open = True

    def send(self, data: bytes) -> None:
        """It arrives once, mostly."""
        loop, weather, chance = asyncio.get_running_loop(), self._weather, self._chance
        at = max(loop.time() + weather.latency + chance.uniform(0, weather.jitter), self._stalled_until, self._last)
        if chance.random() < weather.overtakes:
            loop.call_at(at + chance.uniform(0, 0.2), self._arrive, data)
            return
        self._last = at
        for _ in range(1 + (chance.random() < weather.repeats)):
            loop.call_at(at, self._arrive, data)

    def stall(self, seconds: float) -> None:
        """Nothing that is sent arrives before so many seconds have gone by."""
        self._stalled_until = asyncio.get_running_loop().time() + seconds

    def cut(self) -> None:
        """Nothing arrives any more."""
        self._open = False

    def _arrive(self, data: bytes) -> None:
        if self._open:
            self._deliver(data)


def falsified(message: pb.AssistRequest, chance: random.Random) -> pb.AssistRequest:
    """A span as a liar would send it; anything else as it is."""
    if not message.HasField("span"):
        return message
    span = message.span
    match chance.randrange(5):
        case 0:
            span.text = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 12)))
        case 1:
            span.base_offset += chance.randrange(8)
        case 2:
            span.base_digest = chance.getrandbits(60)
        case 3:
            span.confidence = 1.0
            span.text = span.text[::-1]
        case _:
            span.session = f"s-{chance.getrandbits(64):016x}"
    return message


class Stream:
    """One connection of a drafter, from its hello to its end."""

    def __init__(
        self, roster: Roster, drafter: Drafter, thread: VirtualThread, *, name: str, weather: Weather, seed: int
    ) -> None:
        self._roster = roster
        self._chance = random.Random(seed)
        self._weather = weather
        self.link = roster.attach(hello_of(drafter, name, 4, 0.001, instance=name))
        self._outbox: asyncio.Queue[pb.AssistRequest] = asyncio.Queue()
        self._end = VerifierLink(drafter, self._outbox, thread, 0.001)  # type: ignore[arg-type]
        self.up = Wire(weather, self._chance, self._at_verifier)
        self.down = Wire(Weather(weather.latency, weather.jitter), self._chance, self._at_drafter)
        self.over = asyncio.Event()

    async def run(self) -> None:
        """Until it is ``over``: cut, or ended by the verifier."""
        tasks = [
            asyncio.create_task(work)
            for work in (self._send(), self._answer(), self._end.work(), self._roster.keep_measuring(self.link))
        ]
        try:
            await self.over.wait()
        finally:
            self.up.cut()
            self.down.cut()
            for task in tasks:
                task.cancel()
            self._roster.detach(self.link)
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            await self._end.close()
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _send(self) -> None:
        """What the verifier has for the drafter."""
        while messages := await self.link.outbox.next_messages():
            for message in bundled(messages, takes_several=True):
                self.down.send(message.SerializeToString())
        self.over.set()

    async def _answer(self) -> None:
        while True:
            messages = [await self._outbox.get()]
            while not self._outbox.empty():
                messages.append(self._outbox.get_nowait())
            if self._chance.random() < self._weather.lies:
                messages = [falsified(message, self._chance) for message in messages]
            for message in bundled(messages, takes_several=True):
                self.up.send(message.SerializeToString())

    def _at_verifier(self, data: bytes) -> None:
        with contextlib.suppress(DragomanError):
            self._roster.receive(self.link, pb.AssistRequest.FromString(data))
            return
        self.over.set()  # more than the verifier puts up with

    def _at_drafter(self, data: bytes) -> None:
        for message in unbundled(pb.AssistResponse.FromString(data)):
            if message.WhichOneof("message") == "drain":
                self.over.set()
            elif message.WhichOneof("message") != "welcome":
                self._end.receive(message)
