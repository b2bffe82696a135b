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
from verifier_service.open_session import OpenSession, StepReport

_T = TypeVar("_T")
Outcome = StepReport | BaseException


class StepScheduler:
    """Use from one event loop. Nobody is overtaken: sessions are stepped in the order in which they ask.

    A session begins when the engine has memory for all that it may grow to, so none that runs is ever short of it; the
    others wait in order. A prompt is run chunk by chunk, and between two chunks is a step if anybody waits for one: so
    a step is held up by a chunk at most, however many long prompts there are, and a prompt by a step for each chunk.
    """

    def __init__(self, engine: Engine, drawing: Drawing | None = None) -> None:
        self._engine = engine
        self._drawing = drawing
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._steps: deque[_Asked[StepReport]] = deque()
        self._chunks: deque[_Asked[bool]] = deque()
        self._chunk_ran = False  # since the last step
        self._running = False

    async def step(self, opened: OpenSession) -> StepReport:
        """The session's next step. Raises what it fails with."""
        return await self._ask(self._steps, opened)

    async def prefill(self, opened: OpenSession) -> None:
        """All of its prompt. Raises what it fails with."""
        while await self._ask(self._chunks, opened):
            pass

    async def close(self, opened: OpenSession) -> None:
        """Free its memory, after the step that runs; who waits for memory may begin."""
        await asyncio.get_running_loop().run_in_executor(self._thread, opened.close)
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
            self._start(batch, lambda: run_step(self._engine, sessions, self._drawing))
        elif prompt is not None:
            self._chunk_ran = True
            chunks.remove(prompt)
            self._start([prompt], lambda: [run_chunk(prompt.opened)])
        else:
            self._running = False

    def _next_prompt(self) -> _Asked[bool] | None:
        """The first that has memory, or can have it now; who waits for memory is not overtaken by who needs less."""
        for asked in self._chunks:
            if asked.opened.begun:
                return asked
        if self._chunks and self._engine.has_room(self._chunks[0].opened.session.most_positions):
            return self._chunks[0]
        return None

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
        stopped = SessionError("the verifier has stopped")
        outcomes = ended.result() if ended is not None and not ended.cancelled() else [stopped] * len(batch)
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


def run_chunk(opened: OpenSession) -> bool | BaseException:
    """The next chunk of the session's prompt, in the engine's thread: whether more of it is left, or what failed."""
    try:
        return opened.prefill()
    except Exception as error:
        return error


@torch.inference_mode()
def run_step(engine: Engine, sessions: Sequence[OpenSession], drawing: Drawing | None = None) -> list[Outcome]:
    """One step of all these sessions, in the engine's thread. What each brought, or failed with.

    ``drawing``: draw all rows at once, on a GPU; else only those on the way of each session, as far as it agrees.
    """
    outcomes: dict[int, Outcome] = {}
    steps: dict[int, Step] = {}
    rows = engine.rows_per_step
    share = rows // len(sessions) - 1 if rows is not None else None
    for number, opened in enumerate(sessions):
        try:
            steps[number] = opened.begin_step(share)
        except Exception as error:
            outcomes[number] = error
    shared = share_rows(steps, rows)
    for number, step in shared.items():
        if step is not steps[number]:
            sessions[number].narrow(step)
    outcomes |= _forward(engine, sessions, shared, drawing)
    return [outcomes[number] for number in range(len(sessions))]


def _forward(
    engine: Engine, sessions: Sequence[OpenSession], steps: dict[int, Step], drawing: Drawing | None
) -> dict[int, Outcome]:
    outcomes: dict[int, Outcome] = {}
    if not steps:
        return outcomes
    try:
        all_logits = engine.step([(sessions[number].slot, step) for number, step in steps.items()])
    except Exception as error:
        if len(steps) == 1:
            return {number: error for number in steps}
        for number, step in steps.items():  # whose fault it is, a step for each tells; the others lose nothing but time
            outcomes |= _forward(engine, sessions, {number: step}, drawing)
        return outcomes
    found: dict[int, Tensor | list[Draw]] = dict(zip(steps, all_logits, strict=True))
    if drawing is not None:
        found |= _draw(drawing, sessions, found)
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
