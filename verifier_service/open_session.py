"""A session that is being served: the sans-IO ``TargetSession``, its run on the device, its drafters, its figures.

It is stepped in the engine's thread. A session that goes on by itself stays in the hands of that thread: the event loop
reads what ``end_step`` returned, and puts into the inbox, which it empties itself while the device works
(``engine_turn.py``). One that does not go on is the event loop's until it asks for the next step.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence

from torch import Tensor

from speculation.drafts.span_fate import SpanFate
from speculation.protocol.generation import Chunk, SpeculationStats
from speculation.protocol.messages import Prompt, Resync, Span
from speculation.sampling.row_draws import Draw, RowsToDraw
from speculation.sessions.instructions import Emit, Finish, SendVerdict
from speculation.sessions.target_session import TargetSession
from speculation.verification.step import Step
from transport import tracing
from transport.session_log import SessionLog
from verifier_service.drafter_link import DrafterLink
from verifier_service.engine import Slot
from verifier_service.engine_turn import EngineTurn
from verifier_service.inbox import Event, Inbox, Join
from verifier_service.round_report import RoundCounter
from verifier_service.session_drafters import SessionDrafters
from verifier_service.session_figures import SessionFigures
from verifier_service.session_offers import SessionOffers
from verifier_service.session_planner import Pacing, SessionPlanner
from verifier_service.session_run import SessionRun
from verifier_service.step_report import Addressed, EndedStep, StepReport

log = logging.getLogger(__name__)


class OpenSession:
    """One completion that is being served.

    ``turn``: of the engine that it is stepped on. ``wants_drafters``: whether the client allows them. ``vocab_hash``:
    of the target. ``span``: of the request.
    """

    def __init__(
        self,
        name: str,
        prompt: Prompt,
        session: TargetSession,
        run: SessionRun,
        planner: SessionPlanner,
        pacing: Pacing,
        turn: EngineTurn,
        *,
        wants_drafters: bool,
        vocab_hash: str,
        priority: int = 0,
        span: tracing.Span = tracing.NO_SPAN,
    ) -> None:
        self.name = name
        self.log = SessionLog(log, name)
        self.session = session
        self.planner = planner
        self.drafters = SessionDrafters(name, wanted=wants_drafters, replaying=session.replaying)
        self.figures = SessionFigures(planner.plan)
        self.priority = priority
        self.prompt, self.span = prompt, span
        self._run = run
        self._pacing = pacing
        session.follow(planner.current(pacing.pays))  # what a drafter is offered, too
        self._turn = turn
        self._inbox = Inbox()
        self._report = StepReport()  # of the coming step
        self._held, self._unanswered = 0.0, False  # seconds that the coming step was held back; and no draft came
        self._ended: EndedStep | None = None
        self._failed: Exception | None = None
        self._offers = SessionOffers(name, prompt, vocab_hash=vocab_hash, traceparent=span.context.traceparent)

    # ---- in the event loop ------------------------------------------------------------------------------------

    def put(self, link: DrafterLink, event: Event) -> list[Addressed]:
        """A drafter's event, for the next step; taken in at once while no session is touched by the engine's thread.

        Returns what is to be sent now: a drafter that waits for an answer need not wait for the step.
        """
        asks_for = self.session.committed_length - event.offset if isinstance(event, Resync) else 0
        # However long the text, a drafter may ask for it twice before it is told.
        self._inbox.put(link, event, asks_for=min(max(asks_for, 0), Inbox.BYTES // 3))
        with self._turn.gap() as free:
            if free:
                try:
                    self._read_inbox(Inbox.AT_ONCE)
                except Exception as error:  # it is this session's, not the caller's
                    self.fail(error)
            return self._report.take_messages() if free else []

    def fail(self, error: Exception) -> None:
        """Its coming step does, with this."""
        self._failed = error

    def refuses(self, link: DrafterLink) -> bool:
        """Whether what the drafter sends before the coming step need not even be read."""
        return self._inbox.refuses(link)

    def join(self, link: DrafterLink) -> list[Addressed]:
        """Offer the session to a drafter. See ``put``."""
        self.drafters.join(link)
        return self.put(link, Join())

    def leave(self, link: DrafterLink, *, declined: bool = False) -> None:
        """The drafter takes part no more; nobody waits for it."""
        if declined:
            self.drafters.decline(link)
        else:
            self.drafters.leave(link)
        self._inbox.leave(link)

    def replan(self) -> None:
        """By who steps the session: take the planner's newest plan; the coming verdict carries it to the drafters."""
        self.planner.replan(time.monotonic(), self.drafters)
        if self.session.follow(plan := self.planner.current(self._pacing.pays)):
            self.figures.plan_changed(plan, len(self.session.token_ids))

    async def wait_for_draft(self) -> None:
        """Between steps: hold the coming one back for a draft on its way, if the plan has patience and that pays."""
        if not (patience := self._longest_wait()):
            return
        started = time.perf_counter()
        try:
            async with asyncio.timeout(patience):
                while not self._ready():
                    await self._inbox.arrival()
        except TimeoutError:
            self._unanswered = not self.session.has_draft
        self._held = time.perf_counter() - started

    def _longest_wait(self) -> float:
        plan = self.session.plan
        if not (self.drafters and plan.width) or self.planner.settling:
            return 0.0
        return self._pacing.patience.hold(plan.patience)

    def _ready(self) -> bool:
        """Whether the coming step shall begin: with its draft, for a drafter that waits to be told something, or
        because nobody is left to wait for."""
        self._read_inbox()
        return self.session.ready or bool(self._report.messages) or not self.drafters

    # ---- in the engine's thread -------------------------------------------------------------------------------

    @property
    def begun(self) -> bool:
        """Whether the engine has memory for it."""
        return self._run.begun

    def positions_ahead(self, tokens: int) -> int:
        """See ``TargetSession.positions_ahead``."""
        return self.session.positions_ahead(tokens)

    @property
    def tells_logprobs(self) -> bool:
        """See ``SessionRun``."""
        return self._run.tells_logprobs

    @property
    def slot(self) -> Slot:
        """Its place in the engine."""
        return self._run.slot

    def begin(self, growth: int) -> None:
        """Take memory, or take it again. See ``SessionRun.begin``."""
        with self.figures.beginning():
            self._run.begin(growth)

    def preempt(self) -> None:
        """Give the memory up; before the next step prompt and text are run again."""
        self.log.info("waits: its KV memory went to an older text")
        self.settle()
        self.figures.preempted()
        self._run.close()

    def begin_step(self, share: int | None, least: float = 0.0) -> Step:
        """Take in what drafters sent; the best candidates, for the target to run. ``share``: of a step's rows that
        others need not leave over, without the one for the last token. ``least``: see ``TargetSession.next_step``."""
        if self._failed is not None:
            raise self._failed
        self._read_inbox()
        self._inbox.renew()
        return self._run.begin_step(share, least)

    def narrow(self, step: Step) -> None:
        """The step has room for fewer of them."""
        self._run.narrow(step)

    @property
    def working_drafters(self) -> list[DrafterLink]:
        """Those that are to draft while a step runs; with turns they have nothing to do then."""
        return list(self.drafters) if self.session.plan.width and not self._longest_wait() else []

    def rows_to_draw(self) -> RowsToDraw | None:
        """Of the step that runs, if all its rows can be drawn at once."""
        return self._run.rows_to_draw()

    def end_step(self, found: Tensor | Sequence[Draw], *, logits: Tensor, began: float, ended: float) -> StepReport:
        """The target has run them: verify, commit. For the arguments see ``SessionRun.end_step``.

        What is learned of the step may be left for ``settle``, if the session goes on.
        """
        session, report = self.session, self._report
        self._report = StepReport()
        replaying, drafted = session.replaying, session.stats.draft_tokens
        counter = RoundCounter(session.stats, width=session.plan.width) if self.span.recording else None
        result = self._run.end_step(found, logits=logits, began=began, ended=ended)
        for instruction in result.instructions:
            match instruction:
                case Emit(runs, token_ids):
                    told = self.drafters.with_round_trip(result.told)
                    report.chunk = Chunk(runs, token_ids, logprobs=result.logprobs[: len(token_ids)], step=told)
                case SendVerdict(verdict):
                    report.messages.append((None, verdict))
                case Finish(reason):
                    report.finish_reason = reason
        report.draft_tokens = session.stats.draft_tokens - drafted
        if counter is not None:
            report.round = counter.ended(result, committed_tokens=len(report.chunk.token_ids))
        if replaying:  # a recorded draft says nothing about drafters, and its steps are wider than any plan's
            self.figures.replayed(result)
            report.goes_on = session.replaying and report.finish_reason is None
            return report
        tokens = report.new_tokens = len(report.chunk.token_ids)
        self._ended = EndedStep(result=result, tokens=tokens, held=self._held, unanswered=self._unanswered)
        self._held, self._unanswered = 0.0, False
        if self.drafters:  # what is learned of them decides about the coming step
            self.settle()
        report.goes_on = report.finish_reason is None and (not self._longest_wait() or self._ready())
        if not report.goes_on:
            self.settle()
        return report

    def settle(self) -> None:
        """Learn from the step that ended last, and plan; idempotent. Nobody waits for it while the session goes on."""
        if (ended := self._ended) is None:
            return
        self._ended = None
        self.planner.observe_step(self.session.stats)
        seconds = self.figures.stepped(ended.result, ended.tokens, held=ended.held)
        if seconds is not None and self.drafters and not self.planner.settling:
            self._pacing.observe_step(self.session.plan, own=self.planner.plan, seconds=seconds, ended=ended)
        if self.session.finish_reason is None:
            self.replan()

    def close(self) -> None:
        """Free the KV cache. May be called before it began, and twice."""
        self._run.close()

    def _read_inbox(self, most: int | None = None) -> None:
        """``most``: in the event loop, for which the engine's thread does not wait longer than for one."""
        with contextlib.closing(self._inbox.take(most)) as events:
            for link, event in events:
                self._take_in(link, event)
                if most is not None and self._turn.wanted:
                    break

    def _take_in(self, link: DrafterLink, event: Event) -> None:
        match event:
            case Span():
                if self.session.on_span(event) is SpanFate.STALE:
                    link.stale_spans += 1
                else:
                    self._pacing.patience.forgive(time.monotonic())
            case Resync():
                verdict = self.session.on_resync(event)
                if verdict is None:
                    link.rejected_messages += 1
                else:
                    self._report.messages.append((link, verdict))
            case Join():
                self._report.messages.append((link, self._offers.next(self.session)))

    # ---- figures ----------------------------------------------------------------------------------------------

    @property
    def cached_tokens(self) -> int:
        """See ``SessionRun``."""
        return self._run.cached_tokens

    @property
    def new_tokens(self) -> int:
        """Committed tokens, without those of a replay."""
        return len(self.session.token_ids) - self.session.replayed_tokens

    def stats(self, *, drafters_connected: int) -> SpeculationStats:
        """``drafters_connected``: to the verifier."""
        stats, rule = self.session.stats, self.session.request.rule
        return self.figures.stats(stats, rule, self.drafters.stats(stats), drafters_connected=drafters_connected)
