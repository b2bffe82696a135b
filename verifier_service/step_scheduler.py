"""Continuous batching: sessions that wait when the engine is free share its next step.

In the event loop sessions ask for a step; one thread runs the engine. A step takes whoever asks by the time it begins:
those of the step before ask again as soon as they have passed on what it brought, so a session joins, is verified,
commits and leaves at any step. ``shared_step.py`` has the step itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from speculation.errors import SessionError
from verifier_service.engine import Engine
from verifier_service.memory_queue import MemoryQueue
from verifier_service.open_session import OpenSession, StepReport
from verifier_service.shared_step import Drawing, run_step

_T = TypeVar("_T")


class StepScheduler:
    """Use from one event loop. Nobody is overtaken: sessions are stepped in the order in which they ask.

    Who has KV memory is the business of ``memory_queue.py``; the others wait in order. A prompt is run chunk by chunk,
    and between two chunks is a step if anybody waits for one: so a step is held up by a chunk at most, however many
    long prompts there are, and a prompt by a step for each chunk.
    """

    def __init__(
        self, engine: Engine, drawing: Drawing | None = None, *, on_preempted: Callable[[], None] = lambda: None
    ) -> None:
        self._engine = engine
        self._drawing = drawing
        self._on_preempted = on_preempted
        self._memory = MemoryQueue(engine)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._steps: deque[_Asked[StepReport | None]] = deque()
        self._chunks: deque[_Asked[bool]] = deque()
        self._chunk_ran = False  # since the last step
        self._running = False

    async def step(self, opened: OpenSession) -> StepReport:
        """The session's next step, for which it may have to wait for memory again. Raises what it fails with."""
        while True:
            if not opened.begun:
                await self.prefill(opened)
            report = await self._ask(self._steps, opened)
            if report is not None:
                return report
            self._on_preempted()

    async def prefill(self, opened: OpenSession) -> None:
        """All of its prompt, and its text if it gave its memory up. Raises what it fails with."""
        self._memory.enter(opened)
        while await self._ask(self._chunks, opened):
            pass

    async def close(self, opened: OpenSession) -> None:
        """Free its memory, after the step that runs; who waits for memory may begin."""
        await asyncio.get_running_loop().run_in_executor(self._thread, opened.close)
        self._memory.leave(opened)
        self._begin_soon()

    def shutdown(self) -> None:
        """End the thread, after the step that runs."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _ask(self, waiting: deque[_Asked[_T]], opened: OpenSession) -> _T:
        asked = _Asked(opened, asyncio.get_running_loop().create_future())
        waiting.append(asked)
        self._begin_soon()
        return await asked.done

    def _begin_soon(self) -> None:
        """Once all who were woken by the same step have had their turn to ask for the next one."""
        if not self._running:
            self._running = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        steps, chunks = _still_wanted(self._steps), _still_wanted(self._chunks)
        prompt = self._next_prompt()
        if steps and (self._chunk_ran or prompt is None):
            self._chunk_ran = False
            most = (self._engine.rows_per_step or 2) // 2  # each has a draft token at least, if it has any
            batch = [steps.popleft() for _ in range(min(most, len(steps)))]
            sessions = [asked.opened for asked in batch]
            self._start(batch, lambda: run_step(self._engine, sessions, self._memory, self._drawing))
        elif prompt is not None:
            self._chunk_ran = True
            chunks.remove(prompt)
            self._start([prompt], lambda: [run_chunk(prompt.opened, self._memory)])
        else:
            self._running = False

    def _next_prompt(self) -> _Asked[bool] | None:
        found = self._memory.next_prompt(asked.opened for asked in self._chunks)
        return next((asked for asked in self._chunks if asked.opened is found), None)

    def _start(self, batch: Sequence[_Asked[_T]], work: Callable[[], Sequence[_T | BaseException]]) -> None:
        try:
            running = asyncio.get_running_loop().run_in_executor(self._thread, work)
        except RuntimeError:  # the thread was shut down
            self._end(batch, None)
        else:
            running.add_done_callback(lambda ended: self._end(batch, ended))

    def _end(self, batch: Sequence[_Asked[_T]], ended: asyncio.Future[Sequence[_T | BaseException]] | None) -> None:
        """``ended``: None, or cancelled, if the thread was shut down."""
        self._running = False
        outcomes: Sequence[_T | BaseException] = [SessionError("the verifier has stopped")] * len(batch)
        if ended is not None and not ended.cancelled():
            failed = ended.exception()  # nobody waits for the thread's work itself
            outcomes = ended.result() if failed is None else [failed] * len(batch)
        for asked, outcome in zip(batch, outcomes, strict=True):
            if not asked.done.done():
                if isinstance(outcome, BaseException):
                    asked.done.set_exception(outcome)
                else:
                    asked.done.set_result(outcome)
        if self._steps or self._chunks:
            self._begin_soon()


@dataclass(frozen=True, slots=True)
class _Asked(Generic[_T]):
    """A session that waits, and where it is answered."""

    opened: OpenSession
    done: asyncio.Future[_T]


def _still_wanted(waiting: deque[_Asked[_T]]) -> deque[_Asked[_T]]:
    """Without those whose sessions were left."""
    for _ in range(len(waiting)):
        asked = waiting.popleft()
        if not asked.done.done():
            waiting.append(asked)
    return waiting


def run_chunk(opened: OpenSession, memory: MemoryQueue) -> bool | BaseException:
    """The next chunk of the session's prompt, in the engine's thread: whether more of it is left, or what failed."""
    try:
        return opened.prefill(memory.growth)
    except Exception as error:
        return error
