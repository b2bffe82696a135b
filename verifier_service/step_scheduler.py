"""Continuous batching: sessions that wait when the engine is free share its next step.

In the event loop sessions ask for a step; one thread runs the engine. A step takes whoever asks by the time it begins:
those of the step before ask again as soon as they have passed on what it brought, so a session joins, is verified,
commits and leaves at any step. Rows are shared out evenly, and what one does not need the others have. What fails in a
step fails the session that it belongs to, and no other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from speculation.errors import SessionError
from speculation.sampling.race import RaceNoise
from speculation.sampling.row_draws import Draw, draw_rows
from speculation.verification.step import Step
from verifier_service.engine import Engine
from verifier_service.memory_queue import MemoryQueue
from verifier_service.open_session import OpenSession, StepReport

_T = TypeVar("_T")
#: None: the session gave up its memory instead.
Outcome = StepReport | BaseException | None


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


@torch.inference_mode()
def run_step(
    engine: Engine, sessions: Sequence[OpenSession], memory: MemoryQueue, drawing: Drawing | None = None
) -> list[Outcome]:
    """One step of all these sessions, in the engine's thread. What each brought, or failed with.

    ``drawing``: draw all rows at once, on a GPU; else only those on the way of each session, as far as it agrees.
    """
    outcomes: dict[int, Outcome] = {}
    steps: dict[int, Step] = {}
    rows = engine.rows_per_step
    share = rows // len(sessions) - 1 if rows is not None else None
    for number, opened in enumerate(sessions):
        try:
            if opened.begun:
                steps[number] = opened.begin_step(share)
        except Exception as error:
            outcomes[number] = error
    shared = share_rows(steps, rows)
    for number, step in shared.items():
        if step is not steps[number]:
            sessions[number].narrow(step)
    outcomes |= _make_room(memory, sessions, shared)
    outcomes |= _forward(engine, sessions, shared, drawing)
    return [outcomes.get(number) for number in range(len(sessions))]


def _make_room(memory: MemoryQueue, sessions: Sequence[OpenSession], steps: dict[int, Step]) -> dict[int, Outcome]:
    """Memory for all these steps, but for those that are taken out of them again; the errors of some of these."""
    errors: dict[int, Outcome] = {}
    for number, step in tuple(steps.items()):
        if sessions[number].begun:  # and not preempted for one of those before it
            try:
                memory.make_room(sessions[number], 1 + len(step.candidates))
            except Exception as error:
                errors[number] = error
    for number in tuple(steps):
        if number in errors or not sessions[number].begun:
            del steps[number]
    return errors


def _forward(
    engine: Engine, sessions: Sequence[OpenSession], steps: dict[int, Step], drawing: Drawing | None
) -> dict[int, Outcome]:
    outcomes: dict[int, Outcome] = {}
    if not steps:
        return outcomes
    try:
        all_logits = engine.step([(sessions[number].slot, step) for number, step in steps.items()])
        found: dict[int, Tensor | list[Draw]] = dict(zip(steps, all_logits, strict=True))
        if drawing is not None:
            found |= _draw(drawing, sessions, found)
    except Exception as error:
        if len(steps) == 1:
            return {number: error for number in steps}
        for number, step in steps.items():  # whose fault it is, a step for each tells; the others lose nothing but time
            outcomes |= _forward(engine, sessions, {number: step}, drawing)
        return outcomes
    for number, rows in found.items():
        try:
            outcomes[number] = sessions[number].end_step(rows)
        except Exception as error:
            outcomes[number] = error
    return outcomes


class Drawing(NamedTuple):
    """How the rows of a whole step are drawn on the device. ``padding``: ids that are never drawn."""

    noise: RaceNoise
    padding: Tensor

    @classmethod
    def of(cls, engine: Engine, noise: RaceNoise) -> Drawing | None:
        """None for an engine whose rows are drawn one by one, as far as they are needed."""
        if not engine.draws_all_rows:
            return None
        padding = torch.tensor(engine.tokenizer.vocab.padding_ids, dtype=torch.int64, device=noise.device)
        return cls(noise, padding)


def _draw(
    drawing: Drawing, sessions: Sequence[OpenSession], found: Mapping[int, Tensor | list[Draw]]
) -> dict[int, list[Draw]]:
    """Of those sessions for which it is possible."""
    wanted = {number: rows for number in found if (rows := sessions[number].rows_to_draw()) is not None}
    if not wanted:
        return {}
    logits = [each for number in wanted if isinstance(each := found[number], Tensor)]
    return dict(zip(wanted, draw_rows(logits, list(wanted.values()), *drawing), strict=True))


def share_rows(steps: dict[int, Step], rows: int | None) -> dict[int, Step]:
    """The steps, narrowed to ``rows`` rows in all: nobody has fewer than others but who needs fewer.

    What a session may have depends on how much the others want, never on what it drafted itself. Candidates that
    were drawn are not cut: who has them asked for no more than a share of the step.
    """
    if rows is None or sum(1 + len(step.candidates) for step in steps.values()) <= rows:
        return steps
    room, left = rows - len(steps), sorted(len(step.candidates) for step in steps.values())
    cap = 0
    for place, wanted in enumerate(left):
        cap = room // (len(left) - place)
        if wanted > cap:
            break
        room -= wanted
    return {number: step.narrowed(cap) for number, step in steps.items()}
