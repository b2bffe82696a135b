"""One step of the engine for several sessions, in its thread: begin, launch, read, verify.

A device that works by itself leaves the thread free between launch and read: what nobody waits for is done then. What
fails in a step fails the session that it belongs to, and no other.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from speculation.drafts.recycled_tokens import KEPT
from speculation.errors import SessionError
from speculation.planning.best_plan import worth_hosting
from speculation.planning.step_times import StepTimes
from speculation.sampling.best_tokens import BestTokens
from speculation.sampling.race import RaceNoise
from speculation.sampling.row_draws import Draw, LaunchedDraws, draw_rows
from speculation.verification.step import Step
from verifier_service.engine import Engine
from verifier_service.engine_turn import EngineTurn
from verifier_service.memory_queue import MemoryQueue
from verifier_service.open_session import OpenSession
from verifier_service.step_report import StepReport

log = logging.getLogger(__name__)

#: Of a session's part in a step. None: it gave up its memory instead.
StepOutcome = StepReport | BaseException | None


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


class _LaunchedStep(NamedTuple):
    """``logits``: of each session. ``draws``: of the sessions in ``drawn``, in that order; without any, ``unread``: the
    device is waited for all the same, or the next that looks at the logits would, and the step seem short. ``best``:
    of the sessions in ``recycling``."""

    logits: Mapping[int, Tensor]
    drawn: Sequence[int] = ()
    draws: LaunchedDraws | None = None
    unread: bool = False
    recycling: Sequence[int] = ()
    best: BestTokens | None = None

    def read(self) -> dict[int, Tensor | list[Draw]]:
        """The draws of those sessions for which it is possible, the logits of the others."""
        found: dict[int, Tensor | list[Draw]] = dict(self.logits)
        if self.unread:
            next(iter(self.logits.values()))[0, 0].item()
        if self.draws is not None:
            found |= zip(self.drawn, self.draws.read(), strict=True)
        return found


class _Load(NamedTuple):
    """Of a step: what ``StepTimes.observe_step`` asks for. Taken before it is launched: plans may change meanwhile."""

    draft_tokens: int
    drafters: list[int]
    round_trip: float

    @classmethod
    def of(cls, sessions: Sequence[OpenSession], steps: Mapping[int, Step]) -> _Load:
        links = {link for number in steps for link in sessions[number].working_drafters}
        return cls(
            draft_tokens=sum(len(step.candidates) for step in steps.values()),
            drafters=[link.number for link in links],
            round_trip=max((link.round_trip.mean or 0.0 for link in links), default=0.0),
        )


@dataclass(slots=True)
class SharedStep:
    """How steps are run, one at a time.

    ``drawing``: draw all rows at once, on a GPU; else only those on the way of each session, as far as it agrees.
    ``turn``: in which ``run`` is called; nothing of a session is touched while the device works. ``step_times``: told
    of each step.
    """

    engine: Engine
    memory: MemoryQueue
    turn: EngineTurn
    step_times: StepTimes
    drawing: Drawing | None = None
    _unheard: tuple[Sequence[OpenSession], BestTokens] | None = field(default=None, init=False)

    @torch.inference_mode()
    def run(
        self,
        sessions: Sequence[OpenSession],
        *,
        meanwhile: Callable[[], None] = lambda: None,
        behind_prompt: bool = False,
    ) -> list[StepOutcome]:
        """One step of all these sessions. What each brought, or failed with.

        ``meanwhile``: called once the step is launched, before its draws are read; must not raise. ``behind_prompt``:
        the device may still be working at a prompt, so how long the step takes says nothing.
        """
        self._hear()
        outcomes: dict[int, StepOutcome] = {}
        steps: dict[int, Step] = {}
        rows = self.engine.rows_per_step
        share = rows // len(sessions) - 1 if rows is not None else None
        least = worth_hosting(self.step_times.line[0] if self.step_times.seen else None, len(sessions))
        for number, opened in enumerate(sessions):
            try:
                if opened.begun:
                    steps[number] = opened.begin_step(share, least)
            except Exception as error:
                outcomes[number] = error
        shared = share_rows(steps, rows)
        for number, step in shared.items():
            if step is not steps[number]:
                sessions[number].narrow(step)
        outcomes |= self._make_room(sessions, shared)
        timed = not (behind_prompt and self.step_times.seen)
        outcomes |= self._forward(sessions, shared, meanwhile, timed=timed)
        return [outcomes.get(number) for number in range(len(sessions))]

    def _hear(self) -> None:
        """What the target ranked first in the rows of the step before. Read this late, as the device looks for it while
        that step is verified."""
        if self._unheard is not None:
            (sessions, best), self._unheard = self._unheard, None
            try:
                for opened, rows in zip(sessions, best.read(), strict=True):
                    opened.session.on_best(rows)
            except Exception:  # no text depends on it
                log.exception("what the target ranks first was not taken in")

    def _make_room(self, sessions: Sequence[OpenSession], steps: dict[int, Step]) -> dict[int, StepOutcome]:
        """Memory for all these steps, but for those that are taken out of them again; the errors of some of these."""
        errors: dict[int, StepOutcome] = {}
        for number, step in tuple(steps.items()):
            if sessions[number].begun:  # and not preempted for one of those before it
                try:
                    self.memory.make_room(sessions[number], 1 + len(step.candidates))
                except Exception as error:
                    errors[number] = error
        for number in tuple(steps):
            if number in errors or not sessions[number].begun:
                del steps[number]
        return errors

    def _forward(
        self,
        sessions: Sequence[OpenSession],
        steps: dict[int, Step],
        meanwhile: Callable[[], None],
        *,
        timed: bool,
    ) -> dict[int, StepOutcome]:
        outcomes: dict[int, StepOutcome] = {}
        if not steps:
            return outcomes
        load, began = _Load.of(sessions, steps), time.perf_counter()
        try:
            launched = self._launch(sessions, steps)
            ended = time.perf_counter()  # unless the device goes on by itself
            meanwhile()
            with self.turn.device_works():
                found = launched.read()
            if self.drawing is not None:
                ended = time.perf_counter()
        except Exception as error:
            if len(steps) == 1:
                return {number: error for number in steps}
            for number, step in steps.items():  # whose fault it is, a step for each tells; others lose nothing but time
                outcomes |= self._forward(sessions, {number: step}, meanwhile, timed=timed)
            return outcomes
        if launched.best is not None:
            self._unheard = [sessions[number] for number in launched.recycling], launched.best
        if timed:
            self.step_times.observe_step(
                load.draft_tokens,
                ended - began,
                drafters=load.drafters,
                now=ended,
                round_trip=load.round_trip,
                sessions=len(steps),
            )
        for number, rows in found.items():
            try:
                logits = launched.logits[number]
                outcomes[number] = sessions[number].end_step(rows, logits=logits, began=began, ended=ended)
            except Exception as error:
                outcomes[number] = error
            except BaseException as error:  # of a caller's processor; it would end the thread's turn, and then tasks
                outcomes[number] = SessionError(f"a step was ended by {type(error).__name__}")
        return outcomes

    def _launch(self, sessions: Sequence[OpenSession], steps: dict[int, Step]) -> _LaunchedStep:
        batch = [(sessions[number].slot, step) for number, step in steps.items()]
        if self.drawing is None:
            with self.turn.device_works():
                return _LaunchedStep(dict(zip(steps, self.engine.step(batch), strict=True)))
        logits = dict(zip(steps, self.engine.step(batch), strict=True))
        wanted = {number: rows for number in steps if (rows := sessions[number].rows_to_draw()) is not None}
        if not wanted:
            return _LaunchedStep(logits, unread=True)
        draws = draw_rows([logits[number] for number in wanted], list(wanted.values()), *self.drawing)
        recycling = [number for number in wanted if sessions[number].session.recycles]
        best = _best_of([logits[number] for number in recycling])
        return _LaunchedStep(logits, tuple(wanted), draws, recycling=recycling, best=best)


def _best_of(logits: Sequence[Tensor]) -> BestTokens | None:
    """None if there is nothing to rank, or no memory for it: no text depends on it."""
    try:
        return BestTokens(logits, KEPT) if logits else None
    except torch.OutOfMemoryError:
        log.warning("what the target ranks first is not looked for: no memory is left for it")
        return None


def share_rows(steps: dict[int, Step], rows: int | None) -> dict[int, Step]:
    """The steps, narrowed to ``rows`` rows in all: each has half of an even share, if it needs that; all else goes to
    the likeliest candidates, whoever's they are.

    Candidates that were drawn are not cut, as how many are verified must not depend on what they are: who has them
    asked for no more than a share of the step.
    """
    if rows is None or sum(1 + len(step.candidates) for step in steps.values()) <= rows:
        return steps
    room = rows - len(steps)
    sure = room // (2 * len(steps))
    wanted: list[tuple[bool, float, int, int]] = []
    for number, step in steps.items():
        chances = step.candidates.chances or (1.0,) * len(step.candidates)
        whole = len(chances) if step.proposals else sure
        wanted += [(place >= whole, -chance, place, number) for place, chance in enumerate(chances)]
    given = Counter(number for *_, number in sorted(wanted)[:room])
    return {number: step.narrowed(given[number]) for number, step in steps.items()}
