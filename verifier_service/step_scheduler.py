"""Continuous batching: sessions that wait when the engine is free share its next step (``shared_step.py``), or the next
pass over their prompts (``shared_prefill.py``).

In the event loop sessions ask for a step; one thread runs the engine. A step takes whoever waits by the time it begins
(``step_queue.py``), so a session joins, is verified, commits and leaves at any step. A session that has nothing to wait
for goes on by itself: the thread begins its next step, and the event loop passes on what the last one brought while
that runs. It is never more than one report ahead of the event loop. What drafters have to know goes out first; text
waits until the next step is launched, as long as the device works by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from speculation.errors import SessionError
from speculation.planning.step_times import StepTimes
from verifier_service.engine import Engine
from verifier_service.engine_turn import EngineTurn
from verifier_service.memory_queue import MemoryQueue
from verifier_service.open_session import OpenSession
from verifier_service.shared_prefill import PrefillOutcome, run_prefill
from verifier_service.shared_step import Drawing, SharedStep
from verifier_service.step_queue import Outcome, Prefilled, ScheduledSession, StepQueue
from verifier_service.step_report import Addressed, StepReport

_Brought = tuple[ScheduledSession, Outcome]


class StepScheduler:
    """Use from one event loop. Nobody is overtaken: sessions are stepped in the order in which they ask.

    ``turn``: that of its engine, which the sessions know. ``step_times``: told of each step. ``send``: called in the
    event loop with what each report has for drafters.
    """

    def __init__(
        self,
        engine: Engine,
        drawing: Drawing | None = None,
        *,
        turn: EngineTurn,
        step_times: StepTimes,
        send: Callable[[OpenSession, Sequence[Addressed]], None],
        on_preempted: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._drawing = drawing
        self._turn = turn
        self._send = send
        self._on_preempted = on_preempted
        self._memory = MemoryQueue(engine)
        self._shared = SharedStep(engine, self._memory, turn=turn, step_times=step_times, drawing=drawing)
        # Each has a draft token at least, if it has any.
        self._queue = StepQueue(self._memory, most=(engine.rows_per_step or 2) // 2)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._sessions: dict[OpenSession, ScheduledSession] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._behind_prompt = False  # of a pass over prompts, which a device may still be working at
        self._put_off: list[_Brought] = []  # until the step that runs is launched
        self._unsettled: list[ScheduledSession] = []

    # ---- in the event loop ------------------------------------------------------------------------------------

    async def step(self, opened: OpenSession) -> StepReport:
        """The session's next step, for which it may have to wait for memory again. Raises what it fails with."""
        session = self._sessions[opened]
        while True:
            if not session.asked and not opened.begun:
                await self.prefill(opened)
            report = await self._outcome(session, chunk=False)
            if isinstance(report, StepReport):
                return report
            self._on_preempted()

    async def prefill(self, opened: OpenSession) -> None:
        """All of its prompt, and its text if it gave its memory up. Raises what it fails with."""
        self._loop = asyncio.get_running_loop()
        session = self._sessions.setdefault(opened, ScheduledSession(opened))
        await self._outcome(session, chunk=True)

    async def close(self, opened: OpenSession) -> None:
        """Free its memory, after the step that runs; who waits for memory may begin."""
        if (session := self._sessions.pop(opened, None)) is not None:
            self._queue.leave(session)
        await asyncio.get_running_loop().run_in_executor(self._thread, opened.close)
        if self._queue.closed(opened):
            self._begin_soon()

    def shutdown(self) -> None:
        """End the thread, after the step that runs."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _outcome(self, session: ScheduledSession, *, chunk: bool) -> StepReport | Prefilled | None:
        if not session.asked:
            session.asked = True
            if self._queue.ask(session, chunk=chunk):
                self._begin_soon()
        outcome = await session.outcomes.get()
        session.taken += 1
        session.asked = _goes_on(outcome)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _begin_soon(self) -> None:
        """Once all who were woken by the same step have had their turn to ask for the next one."""
        asyncio.get_running_loop().call_soon(self._begin)

    def _sent(self, session: ScheduledSession, outcome: Outcome) -> Outcome:
        """In the event loop, once what a report has for drafters was passed on; or with what that failed."""
        if isinstance(outcome, StepReport) and outcome.messages:
            try:
                self._send(session.opened, outcome.take_messages())
            except Exception as error:
                session.failed = error
                return error
        return outcome

    # ---- in either thread -------------------------------------------------------------------------------------

    def _begin(self) -> None:
        try:
            self._thread.submit(self._run).add_done_callback(self._ended)
        except RuntimeError:  # the thread was shut down
            self._fail(SessionError("the verifier has stopped"))

    def _ended(self, turn: Future[None]) -> None:
        if turn.cancelled():  # the thread was shut down
            self._fail(SessionError("the verifier has stopped"))
        elif (error := turn.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """All that wait."""
        self._catch_up()
        self._tell([(session, error) for session in self._queue.clear()])

    def _tell(self, brought: Sequence[_Brought], *, then_begin: bool = False) -> None:
        """The event loop, which begins the next step if that is left to it."""

        def take() -> None:
            for session, outcome in brought:
                session.outcomes.put_nowait(self._sent(session, outcome))
            if then_begin:
                self._begin_soon()

        if self._loop is not None and (brought or then_begin):
            with contextlib.suppress(RuntimeError):  # it is closed: nobody waits any more
                self._loop.call_soon_threadsafe(take)

    # ---- in the engine's thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        """A step or a chunk, whichever's turn it is; then the next, if it is anybody's."""
        with self._turn:
            sessions, prompts = self._queue.next_turn()
            if sessions:
                self._step(sessions)
            elif prompts:
                self._chunk(prompts)
            else:  # they were left
                self._catch_up()

    def _chunk(self, sessions: Sequence[ScheduledSession]) -> None:
        self._catch_up()
        outcomes: dict[OpenSession, PrefillOutcome]
        try:
            outcomes = run_prefill(self._engine, [session.opened for session in sessions], self._memory)
        except Exception as error:
            outcomes = {session.opened: error for session in sessions}
        self._behind_prompt = self._drawing is not None
        self._queue.put_back([session for session in sessions if session.opened not in outcomes])
        brought: list[_Brought] = []
        for session in sessions:
            outcome = outcomes.get(session.opened)
            if outcome is True:
                self._queue.go_on([session], chunk=True)
            elif outcome is False:
                self._queue.go_on([session], chunk=False)
                session.brought += 1
                brought.append((session, Prefilled()))
            elif outcome is not None:
                brought.append((session, outcome))
        self._begin_next(brought)

    def _step(self, sessions: Sequence[ScheduledSession]) -> None:
        opened = [session.opened for session in sessions]
        outcomes: Sequence[Outcome]
        try:
            behind, self._behind_prompt = self._behind_prompt, False
            outcomes = self._shared.run(opened, meanwhile=self._catch_up, behind_prompt=behind)
        except Exception as error:
            outcomes = [error] * len(sessions)
        self._catch_up()  # if nothing was launched
        at_once: list[_Brought] = []
        late = False
        for session, outcome in zip(sessions, outcomes, strict=True):
            if session.failed is not None:
                outcome = session.failed
            if isinstance(outcome, StepReport) and outcome.goes_on and session.brought > session.taken:
                outcome, late = _handed_over(session, outcome), True
            session.brought += 1
            if _goes_on(outcome):
                self._unsettled.append(session)
            if _goes_on(outcome) and self._drawing is not None:
                self._put_off.append((session, outcome))  # or the event loop would run while the step is prepared
            else:
                at_once.append((session, outcome))
        self._tell_drafters(self._put_off)
        self._queue.go_on(self._unsettled, chunk=False)
        self._begin_next(at_once, late=late)

    def _tell_drafters(self, put_off: Sequence[_Brought]) -> None:
        """What they draft for is not put off: the step after the coming one needs it."""
        drafted = [(session, report) for session, report in put_off if session.opened.drafters]

        def send() -> None:
            for session, report in drafted:
                self._sent(session, report)

        if drafted and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it is closed
                self._loop.call_soon_threadsafe(send)

    def _begin_next(self, brought: Sequence[_Brought], *, late: bool = False) -> None:
        """``late``: the event loop is behind; so that sessions do not fall apart into several steps, all wait for it,
        and it begins the next one."""
        if late:
            self._catch_up()
            self._tell(brought, then_begin=True)
        elif self._queue.still_running():
            self._tell(brought)
            self._begin()
        else:
            self._catch_up()
            self._tell(brought)

    def _catch_up(self) -> None:
        """What was put off until a step is launched."""
        put_off, self._put_off = self._put_off, []
        self._tell(put_off)
        unsettled, self._unsettled = self._unsettled, []
        for session in unsettled:
            try:
                session.opened.settle()
            except Exception as error:
                session.failed = error


def _goes_on(outcome: Outcome) -> bool:
    return isinstance(outcome, Prefilled) or (isinstance(outcome, StepReport) and outcome.goes_on)


def _handed_over(session: ScheduledSession, report: StepReport) -> Outcome:
    """It would go on by itself, but has to ask."""
    report.goes_on = False
    try:
        session.opened.settle()
    except Exception as error:
        return error
    return report
