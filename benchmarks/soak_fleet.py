"""The processes of a soak: a fleet whose members are killed, stopped and held while texts run."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import psutil

from benchmarks.pair_processes import Side
from dragoman.client import Client
from dragoman.coordinator_client import CoordinatorClient
from dragoman.processes import ChildProcess, child

#: Seconds between the end of a process and its successor, and for which one is held.
_GONE, _HELD = 0.5, (1.0, 8.0)
#: Seconds in which all members have found each other.
_TOGETHER = 300.0


class Fault(enum.StrEnum):
    """What may befall a process. ``HELD``: SIGSTOP for a while, as a machine that swaps or whose link hangs."""

    KILLED = "killed"
    STOPPED = "stopped"
    HELD = "held"


class Member:
    """A process that comes back, with the same arguments, after whatever befell it."""

    def __init__(self, name: str, arguments: list[str], *, spared: bool) -> None:
        self.name = name
        #: It is never ended, so that its memory can be watched; held it may be.
        self.spared = spared
        self.address = ""
        self._arguments = arguments
        self._life = contextlib.AsyncExitStack()
        self._process: ChildProcess | None = None

    async def start(self) -> None:
        """Until it is ready. Raises DragomanError if it dies before."""
        self._process = await self._life.enter_async_context(child(self.name, self._arguments))
        self.address = (await self._process.ready()).get("address", "")

    @property
    def process(self) -> psutil.Process:
        """That runs now."""
        assert self._process is not None
        return psutil.Process(self._process.pid)

    async def suffer(self, fault: Fault, chance: random.Random) -> None:
        """Until it is there again."""
        assert self._process is not None
        if fault is Fault.HELD:
            os.kill(self._process.pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(chance.uniform(*_HELD))
            finally:
                os.kill(self._process.pid, signal.SIGCONT)
            return
        if fault is Fault.KILLED:
            self._process.kill()
        await self.close()
        await asyncio.sleep(_GONE)
        await self.start()

    async def close(self) -> None:
        """SIGTERM, if it still runs."""
        await self._life.aclose()


@dataclass
class SoakFleet:
    """A coordinator, verifiers and drafters. The first of each kind is spared."""

    coordinator: Member
    verifiers: list[Member]
    drafters: list[Member]
    metrics_port: int
    faults: Counter[str] = field(default_factory=Counter)

    @property
    def spared(self) -> list[Member]:
        """Those whose resources are watched."""
        return [member for member in self._members if member.spared]

    @property
    def _members(self) -> list[Member]:
        return [self.coordinator, *self.verifiers, *self.drafters]

    async def strike(self, chance: random.Random, every: float, until: float) -> None:
        """One fault after the other up to that time; ``every``: mean seconds between them. At the end all are there."""
        while (at := time.monotonic() + chance.expovariate(1 / every)) < until:
            await asyncio.sleep(at - time.monotonic())
            member = chance.choice(self._members)
            fault = Fault.HELD if member.spared else chance.choice(list(Fault))
            self.faults[f"{member.name} {fault}"] += 1
            await member.suffer(fault, chance)

    async def leftovers(self, seconds: float = 60.0) -> dict[str, str]:
        """By verifier what is still held some time after the last text: {} as it should be."""
        left: dict[str, str] = {}
        for verifier in self.verifiers:
            async with Client(verifier.address) as client:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        while (now := await client.describe()).sessions or now.kv_cache_bytes:
                            await asyncio.sleep(0.2)
                if now.sessions or now.kv_cache_bytes:
                    left[verifier.name] = f"{now.sessions} sessions, {now.kv_cache_bytes} bytes of KV cache"
        return left


@contextlib.asynccontextmanager
async def soak_fleet(targets: tuple[str, int], drafters: list[str], side: Side) -> AsyncIterator[SoakFleet]:
    """All of it up and together. ``targets``: the model, and how many replicas; ``drafters``: a model each.

    Raises DragomanError if one dies.
    """
    model, replicas = targets
    coordinator = Member("coordinator", ["coordinator", "--listen=127.0.0.1:0"], spared=True)
    fleet = SoakFleet(coordinator, [], [], _free_port())
    try:
        await coordinator.start()
        join = f"--coordinator={coordinator.address}"
        for number in range(replicas):
            name = f"verifier-{number}"
            arguments = ["verifier", "--listen=127.0.0.1:0", join, f"--name={name}", *side.arguments(model)]
            metrics = [] if number else [f"--metrics-port={fleet.metrics_port}"]
            fleet.verifiers.append(Member(name, [*arguments, *metrics], spared=number == 0))
        for number, drafter in enumerate(drafters):
            name = f"drafter-{number}"
            arguments = ["drafter", join, f"--name={name}", *side.arguments(drafter)]
            fleet.drafters.append(Member(name, arguments, spared=number == 0))
        for member in (*fleet.verifiers, *fleet.drafters):
            await member.start()
        async with CoordinatorClient(coordinator.address) as control, asyncio.timeout(_TOGETHER):
            while len((await control.status()).members) < replicas + len(drafters):
                await asyncio.sleep(0.2)
        yield fleet
    finally:
        for member in (*fleet.drafters, *fleet.verifiers, fleet.coordinator):
            await member.close()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
