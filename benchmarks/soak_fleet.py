"""The processes of a soak: a fleet whose members are killed, stopped and held while texts run."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import psutil

from benchmarks.pair_processes import Side
from benchmarks.ports import free_port
from dragoman.client import Client
from dragoman.coordinator_client import CoordinatorClient
from dragoman.processes import ChildProcess, child
from speculation.errors import DragomanError

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
    def faults(self) -> tuple[Fault, ...]:
        """That may befall it."""
        return (Fault.HELD,) if self.spared else tuple(Fault)

    @property
    def process(self) -> psutil.Process:
        """That runs now."""
        assert self._process is not None
        return psutil.Process(self._process.pid)

    def check(self) -> None:
        """Raises DragomanError if it ended by itself."""
        assert self._process is not None
        if (code := self._process.exit_code) is not None:
            raise DragomanError(f"{self.name} ended by itself ({code}):\n{self._process.last_words}")

    async def suffer(self, fault: Fault, seconds: float) -> None:
        """Until it is there again. ``seconds``: for which it is held. Raises DragomanError if it had ended by itself,
        or does not end on SIGTERM."""
        self.check()
        assert self._process is not None
        if fault is Fault.HELD:
            os.kill(self._process.pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(seconds)
            finally:
                os.kill(self._process.pid, signal.SIGCONT)
            return
        if fault is Fault.KILLED:
            self._process.kill()
        await self.close()
        if fault is Fault.STOPPED and self._process.exit_code != 0:
            raise DragomanError(f"{self.name} stopped with {self._process.exit_code}:\n{self._process.last_words}")
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

    async def together(self) -> None:
        """Until the coordinator knows all. Raises DragomanError if one is missing for long."""
        count = len(self.verifiers) + len(self.drafters)
        async with CoordinatorClient(self.coordinator.address) as control:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TOGETHER):
                    while len((await control.status()).members) < count:
                        await asyncio.sleep(0.2)
                    return
        raise DragomanError(f"of {count} members some did not join in {_TOGETHER:g} s")

    def faults_to_come(self, chance: random.Random) -> Iterator[tuple[Member, Fault]]:
        """Rounds of all that may befall them, in any order; each begins with a verifier that is killed, if one may."""
        faults = [(member, fault) for member in self._members for fault in member.faults]
        while True:
            chance.shuffle(faults)
            faults.sort(key=lambda each: each[0] not in self.verifiers or each[1] is not Fault.KILLED)
            yield from faults

    async def strike(self, chance: random.Random, every: float, until: float) -> None:
        """One fault after the other up to that time; ``every``: mean seconds between them. At the end all are there.

        Raises DragomanError if a process ended by itself.
        """
        for member, fault in self.faults_to_come(chance):
            if (at := time.monotonic() + chance.expovariate(1 / every)) >= until:
                break
            await asyncio.sleep(at - time.monotonic())
            self.faults[f"{member.name} {fault}"] += 1
            await member.suffer(fault, chance.uniform(*_HELD))
        await asyncio.sleep(until - time.monotonic())
        for member in self._members:
            member.check()

    async def leftovers(self, seconds: float = 60.0) -> dict[str, str]:
        """By verifier what is still held some time after the last text: {} as it should be."""
        left: dict[str, str] = {}
        for verifier in self.verifiers:
            try:
                async with Client(verifier.address) as client, asyncio.timeout(seconds):
                    while sessions := (await client.describe()).sessions:
                        left[verifier.name] = f"{sessions} sessions"
                        await asyncio.sleep(0.2)
                    left.pop(verifier.name, None)
            except TimeoutError:
                left.setdefault(verifier.name, "no answer")
            except DragomanError as error:
                left[verifier.name] = str(error)
        return left


@contextlib.asynccontextmanager
async def soak_fleet(targets: tuple[str, int], drafters: list[str], side: Side) -> AsyncIterator[SoakFleet]:
    """All of it up and together. ``targets``: the model, and how many replicas; ``drafters``: a model each.

    Raises DragomanError if one dies.
    """
    model, replicas = targets
    coordinator = Member("coordinator", ["coordinator", "--listen=127.0.0.1:0"], spared=True)
    fleet = SoakFleet(coordinator, [], [], free_port())
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
        await fleet.together()
        yield fleet
    finally:
        for member in (*fleet.drafters, *fleet.verifiers, fleet.coordinator):
            await member.close()
