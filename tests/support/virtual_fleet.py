"""A fleet in memory and in virtual time, under a schedule of faults that one seed decides.

The verifiers, their schedulers, rosters and planners, the drafters' desks and the coordinator's decisions are the real
ones; models are formulas, the wires are calls. Whatever the schedule, each text has to be the target's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
from collections.abc import Coroutine
from typing import Any
from unittest import mock

from speculation.errors import DivergedError, DragomanError
from speculation.protocol.generation import Chunk, Finished, GenerationRequest
from speculation.protocol.messages import Prompt, SpeculationPlan
from speculation.sampling.params import Rule
from tests.support.session_drivers import SAMPLINGS, TARGET
from tests.support.text_engine import TextDrafter, TextEngine
from tests.support.text_models import DRAFTER_VOCAB, TextModel
from tests.support.virtual_coordinator import coordinate
from tests.support.virtual_hosts import Course, Host, LostError, plain_text
from tests.support.virtual_links import Stream, Weather
from tests.support.virtual_time import Clock, VirtualThread, run_virtually
from verifier_service import memory_queue, step_scheduler
from verifier_service.open_session import OpenSession
from verifier_service.verifier import Verifier

#: Virtual seconds in which every text has to be there, whatever happens in the first ``TROUBLE`` of them.
ENDED, TROUBLE = 600.0, 60.0
PROMPTS = ("a story: ", "twice ", "the cat", "猫")
#: Made once: what they computed serves all schedules.
_DRAFTERS = [TextModel(DRAFTER_VOCAB, salt) for salt in (1, 2, 3)]


class VirtualFleet:
    """Two verifiers of one model, drafters that dial them, clients that go on elsewhere, and a coordinator, or none."""

    def __init__(self, seed: int, clock: Clock) -> None:
        self.chance = random.Random(seed)
        self.clock = clock
        self.course = Course()
        self._plan = SpeculationPlan(
            width=self.chance.choice([1, 4, 12]),
            lookahead=self.chance.choice([2, 8]),
            stop_threshold=self.chance.choice([0.1, 0.3]),
            span_tokens=self.chance.choice([1, 4]),
            patience=self.chance.choice([0.0, 0.0, 0.05, 2.0]),
            alternatives=self.chance.choice([0, 2]),
        )
        self._adaptive = self.chance.random() < 0.5
        self._lookup = self.chance.random() < 0.5
        self._rows = self.chance.choice([None, 16, 32])
        self._room = self.chance.choice([None, 40])
        self._growth = self.chance.choice([4, memory_queue.GROWTH])  # of which little means that memory is taken back
        self.hosts = [self._host(number) for number in range(2)]
        self._over = asyncio.Event()

    def thread(self, slowest: float) -> VirtualThread:
        """Of an engine or a drafter, each call of its own length."""
        return VirtualThread(lambda: self.chance.uniform(0, slowest))

    def _host(self, number: int) -> Host:
        engine = TextEngine(rows=self._rows, room=self._room, step_seconds=self.chance.choice([0.0, 0.01]))
        engine.model = TARGET
        slowest = self.chance.choice([0.02, 0.2])
        with (
            mock.patch.object(step_scheduler, "ThreadPoolExecutor", lambda **_: self.thread(slowest)),
            mock.patch.object(memory_queue, "GROWTH", self._growth),
        ):
            verifier = Verifier(engine, plan=self._plan, adaptive=self._adaptive, lookup=self._lookup)
        return Host(verifier, engine, number)

    async def run(self) -> Course:
        """All of it. Raises TimeoutError if a text does not come."""
        chance = self.chance
        clients = [
            asyncio.create_task(self._client()) for _ in range(chance.randrange(1, 6) + (4 if self._room else 0))
        ]
        beside: list[Coroutine[Any, Any, None]] = [self._drafter(n) for n in range(chance.choice((0, 1, 1, 2, 3)))]
        beside.append(self._faults())
        if chance.random() < 0.5:
            beside.append(coordinate(self.hosts, self.clock, self.chance, self.course))
        others = [asyncio.create_task(each) for each in beside]
        try:
            async with asyncio.timeout(ENDED):
                await asyncio.gather(*clients)
        finally:
            self._over.set()
            for task in others:
                task.cancel()
            ends = await asyncio.gather(*others, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end
        for host in self.hosts:
            await self._check(host)
        self.course.seconds = self.clock.now
        return self.course

    async def _check(self, host: Host) -> None:
        """No session, no memory, no drafter is left of it."""
        for _ in range(100):
            if not host.verifier.sessions:
                break
            await asyncio.sleep(0.5)
        status = host.verifier.describe()
        if status.sessions or status.kv_cache_bytes or host.engine.open_slots or host.engine.held:
            self.course.leaked.append(
                f"verifier {host.number}: {status.sessions} sessions, {host.engine.open_slots} slots"
            )
        if status.drafters:
            self.course.leaked.append(f"verifier {host.number}: {len(status.drafters)} drafters")
        host.verifier.shutdown()

    # ---- clients ----------------------------------------------------------------------------------------------

    async def _client(self) -> None:
        chance = self.chance
        await asyncio.sleep(chance.uniform(0, chance.choice((0.2, 3))))
        asked = GenerationRequest(
            prompt=Prompt(text=chance.choice(PROMPTS)),
            sampling=chance.choice(SAMPLINGS),
            max_tokens=chance.randrange(1, 48) if self._room is None else chance.randrange(8, 18),
            rule=chance.choice((Rule.RACE, Rule.RACE, Rule.EXACT)),
            draft=chance.random() < 0.9,
        )
        leaves_after = chance.randrange(1, 20) if chance.random() < 0.15 else None
        slowness = chance.choice([0.0, 0.0, 0.1])
        text = bytearray()
        while True:
            host = chance.choice(self.hosts)
            if not host.up:
                await asyncio.sleep(0.3)
                continue
            resumed = dataclasses.replace(asked, received=bytes(text))
            call = asyncio.create_task(self._read(host, resumed, text, leaves_after=leaves_after, slowness=slowness))
            host.calls.append(call)
            try:
                await call
                break
            except (DragomanError, LostError, asyncio.CancelledError) as error:
                if isinstance(error, DivergedError):
                    raise
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                    raise  # not what a killed verifier does to its clients
                self.course.happened[f"moved: {type(error).__name__}"] += 1
                await asyncio.sleep(chance.uniform(0.05, 1))
            finally:
                host.calls.remove(call)
        expected = plain_text(asked)
        if leaves_after is not None:
            self.course.left += 1
            expected = expected[: len(text)]
        else:
            self.course.texts += 1
        if bytes(text) != expected:
            self.course.different.append(f"{asked}: {bytes(text)!r} instead of {expected!r}")

    async def _read(
        self, host: Host, request: GenerationRequest, text: bytearray, *, leaves_after: int | None, slowness: float
    ) -> None:
        chunks = 0
        async with contextlib.aclosing(host.verifier.generate(request)) as events:
            async for event in events:
                if isinstance(event, Chunk):
                    text += event.data
                    chunks += 1
                    if slowness:
                        await asyncio.sleep(self.chance.uniform(0, slowness))
                    if chunks == leaves_after:
                        return
                elif isinstance(event, Finished):
                    self.course.happened["finished"] += 1
                    self.course.happened["accepted"] += event.stats.accepted_tokens
                    return
        raise LostError

    # ---- drafters ---------------------------------------------------------------------------------------------

    async def _drafter(self, number: int) -> None:
        chance, thread = self.chance, self.thread(self.chance.choice([0.001, 0.01, 0.2]))
        drafter = TextDrafter(refuse=chance.random() < 0.05)
        drafter.model = chance.choice(_DRAFTERS)
        while True:
            host = chance.choice(self.hosts)
            if host.up:
                weather = Weather.drawn(chance)
                seed = chance.getrandbits(32)
                stream = Stream(host.verifier.roster, drafter, thread, name=f"d{number}", weather=weather, seed=seed)
                host.streams.append(stream)
                try:
                    await stream.run()
                finally:
                    host.streams.remove(stream)
                self.course.happened["dialled"] += 1
            await asyncio.sleep(chance.uniform(0.01, 1.5))

    # ---- what goes wrong --------------------------------------------------------------------------------------

    async def _faults(self) -> None:
        chance = self.chance
        often = chance.choice((0.3, 1.0, 4.0))  # a second
        while self.clock.now < TROUBLE:
            await asyncio.sleep(chance.expovariate(often))
            host = chance.choice(self.hosts)
            fault = chance.choice(("cut", "stall", "stall", "crash", "hand over", "drain", "jump"))
            self.course.happened[fault] += 1
            match fault:
                case "cut":
                    for stream in host.streams:
                        stream.over.set()
                case "stall":
                    for stream in host.streams:
                        wire = chance.choice((stream.up, stream.down))
                        wire.stall(chance.choice((1.0, 5.0, 20.0, 60.0)))
                case "crash":
                    await self._crash(host)
                case "hand over":
                    host.verifier.hand_over()
                case "drain":
                    host.verifier.drain()
                    await asyncio.sleep(chance.uniform(0, 2))
                    host.verifier.drain(False)
                case "jump":  # the machine slept
                    self.clock.pass_by(chance.choice((0.5, 30.0)))

    async def _crash(self, host: Host) -> None:
        """Its process is killed: all that it had is gone, and another is started in its place."""
        host.up = False
        for call in host.calls:
            call.cancel()
        for stream in host.streams:
            stream.over.set()
        await asyncio.sleep(self.chance.uniform(0, 5))
        while host.calls or host.streams:
            await asyncio.sleep(0.1)
        await self._check(host)
        fresh = self._host(host.number)
        host.verifier, host.engine, host.up = fresh.verifier, fresh.engine, True


def run_schedule(seed: int) -> Course:
    """The course that the seed decides. Raises what goes wrong in it."""
    preempt, preempted = OpenSession.preempt, 0

    def counted(opened: OpenSession) -> None:
        nonlocal preempted
        preempted += 1
        preempt(opened)

    with mock.patch.object(OpenSession, "preempt", counted):
        course, seconds = run_virtually(lambda clock: VirtualFleet(seed, clock).run())
    course.seconds = seconds
    course.happened["preempted"] += preempted
    return course
