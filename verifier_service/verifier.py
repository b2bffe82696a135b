"""The verifier: sessions of clients, drafters that attach to them, one engine thread that steps them in turn.

The target never waits for a drafter: a session steps with whatever its pool holds, and nothing a drafter does or
omits can hold it up. All engine work goes through one thread, where sessions that wait share the next step
(``step_scheduler.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncGenerator

from speculation.errors import DragomanError, DrainingError, SessionError
from speculation.guide import Guide
from speculation.planning.plan import PlanLimits
from speculation.planning.step_times import StepTimes
from speculation.plural import count_of
from speculation.protocol.generation import Finished, FinishReason, GenerationEvent, GenerationRequest
from speculation.protocol.messages import SpeculationPlan
from speculation.protocol.status import VerifierStatus
from speculation.sampling.params import Rule
from speculation.sampling.race import RaceNoise
from speculation.verification.draft_verifier import DraftVerifier
from transport.limits import WireLimits
from transport.tracing import NO_SPAN, Span
from verifier_service.admission import admit, check_room, check_width
from verifier_service.drafter_trust import DrafterTrust
from verifier_service.engine import Engine
from verifier_service.engine_turn import EngineTurn
from verifier_service.guides import Guides
from verifier_service.instruments import Instruments, NoInstruments
from verifier_service.local_text import LocalText
from verifier_service.metrics import VerifierMetrics
from verifier_service.open_session import OpenSession
from verifier_service.planning_budget import PlanningBudget
from verifier_service.quotas import Quotas
from verifier_service.recycled_texts import RecycledTexts
from verifier_service.roster import Roster
from verifier_service.rule_choice import RuleChoice
from verifier_service.session_messages import described, finished, started
from verifier_service.session_meter import SessionMeter
from verifier_service.session_planner import Pacing, SessionPlanner
from verifier_service.session_run import SessionRun
from verifier_service.shared_step import Drawing
from verifier_service.step_scheduler import StepScheduler
from verifier_service.tokenizing import Tokenizing
from verifier_service.tool_guide import compiled

log = logging.getLogger(__name__)
#: What waits for a client: the session's text, or what it ended with.
Events = asyncio.Queue[GenerationEvent | BaseException]


class Verifier:
    """A target that serves completions.

    Use from one event loop. ``lookup``: sessions also look up in their own text how it goes on. ``recycled``: which may
    learn from each other (None: all of a client's). ``local_only``: texts are asked for in this process alone, whatever
    comes over the wire. Raises InputError for a plan of steps too wide for the engine.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        plan: SpeculationPlan | None = None,
        limits: WireLimits | None = None,
        adaptive: bool = True,
        lookup: bool = True,
        recycled: RecycledTexts | None = None,
        local_only: bool = False,
        max_sessions: int = 64,
        max_sessions_each: int | None = None,
        trust: DrafterTrust | None = None,
        instruments: Instruments | None = None,
    ) -> None:
        self.engine = engine
        self.limits = limits or WireLimits()
        self._plan = plan or SpeculationPlan()
        check_width(self._plan.width, engine)
        self.max_sessions = max_sessions
        #: What no adaptive plan exceeds; a coordinator may set others.
        self.plan_limits = PlanLimits()
        self.committed_tokens = 0
        self._adaptive, self._lookup, self._recycled = adaptive, lookup, recycled or RecycledTexts(fills=adaptive)
        self._step_times = StepTimes(learns=adaptive, free=engine.free_draft_tokens)
        self._planning_budget = PlanningBudget()
        self.pacing = {rule: Pacing.of(rule, self._plan, adaptive=adaptive) for rule in Rule.concrete()}
        self._noise = RaceNoise(engine.tokenizer.vocab, device=engine.device_name)
        #: Whether new sessions are refused, and whether for good.
        self.draining, self.stopping, self._local_only = local_only, False, local_only
        self._sessions: dict[str, OpenSession] = {}
        self._events: dict[str, Events] = {}
        self._local: set[str] = set()  # sessions of callers in this process
        self.metrics = VerifierMetrics(instruments or NoInstruments(), engine=engine, sessions=self._sessions)
        self.tokenizing = Tokenizing(engine.tokenizer, refused=self.metrics.refused_by)
        self._guides = Guides(engine.tokenizer.vocab)
        #: Of the identities that call.
        self.quotas = Quotas(max_sessions_each, refused=self.metrics.refused_by)
        self.roster = Roster(
            engine=engine,
            limits=self.limits,
            sessions=self._sessions,
            metrics=self.metrics,
            trust=trust or DrafterTrust(),
        )
        self._rules, self._turn = RuleChoice(), EngineTurn()
        self._steps = self._new_scheduler()

    def _new_scheduler(self) -> StepScheduler:
        return StepScheduler(
            self.engine,
            Drawing.of(self.engine, self._noise),
            turn=self._turn,
            step_times=self._step_times,
            send=self.roster.send,
            on_preempted=lambda: self.metrics.preemptions(1),
        )

    @property
    def sessions(self) -> list[OpenSession]:
        return list(self._sessions.values())

    def shutdown(self) -> None:
        """End the threads and all sessions; those that waited for the engine's thread to close them are closed here."""
        self.tokenizing.shutdown()
        self._steps.shutdown()
        self._guides.close()
        for opened in self._sessions.values():
            opened.close()

    # ---- clients ----------------------------------------------------------------------------------------------

    async def generate(
        self, request: GenerationRequest, local: LocalText | None = None, *, span: Span = NO_SPAN
    ) -> AsyncGenerator[GenerationEvent, None]:
        """Serve one request. Raises InputError, DrainingError or LimitExceededError before anything is yielded if it
        cannot be served, DrainingError later if the session is handed over, DivergedError if it cannot be resumed.

        Closing the iterator (the client went away) ends the session and frees its KV cache. ``local``: of a caller in
        this process, whom a drain, which is for clients, does not concern. ``span``: of the request, told of its
        steps; who began it ends it.
        """
        guide = await compiled(self._guides, request, self.engine.tokenizer)
        opened = self._open(request, guide, local, span=span)
        events = self._events[opened.name] = Events()
        if local is not None:
            self._local.add(opened.name)
        # A task of its own, so that a client that reads slowly holds up nothing, least of all its KV cache.
        pump = asyncio.create_task(self._serve(opened, events))
        pump.add_done_callback(lambda _: events.put_nowait(SessionError("the session was ended")))  # however it was
        try:
            while True:
                event = await events.get()
                if isinstance(event, BaseException):
                    raise event
                yield event
                if isinstance(event, Finished):
                    return
        finally:
            self._events.pop(opened.name, None)
            self._local.discard(opened.name)
            pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(asyncio.gather(pump, return_exceptions=True))

    def _open(
        self, request: GenerationRequest, guide: Guide | None, local: LocalText | None, *, span: Span
    ) -> OpenSession:
        if self.stopping or (self.draining and local is None):
            raise DrainingError("this verifier takes no more sessions", remedy="ask another of the same model")
        check_room(len(self._sessions), most=self.max_sessions)
        vocab = self.engine.tokenizer.vocab
        session = admit(
            request,
            self.engine,
            plan=self._plan,
            pool_bytes=self.limits.pool_bytes,
            lookup=self._lookup,
            recycled=self._recycled,
            auto=lambda: self._rules.choose(link for link in self.roster.links if link.trusted),
            guide=guide,
            local=local,
        )
        processor = None if local is None else local.processor
        drawing = DraftVerifier.of(session.request, vocab, self._noise, guide=guide, processor=processor)
        opened = OpenSession(
            name=f"s-{secrets.token_hex(8)}",
            prompt=request.prompt,
            session=session,
            run=SessionRun(session, drawing, self.engine, logprobs=request.logprobs),
            planner=SessionPlanner(
                self._plan,
                self._step_times,
                adaptive=self._adaptive,
                limits=lambda: self.plan_limits,
                rule=session.request.rule,
                budget=self._planning_budget,
                sessions=lambda: max(1, len(self._sessions)),
            ),
            pacing=self.pacing[session.request.rule],
            turn=self._turn,
            wants_drafters=self._plan.width > 0 and request.draft,
            priority=request.priority,
            vocab_hash=vocab.content_hash,
            span=span,
        )
        self._sessions[opened.name] = opened
        return opened

    async def _serve(self, opened: OpenSession, events: Events) -> None:
        """Step the session to its end, passing on what each step brings."""
        meter = SessionMeter(self.metrics, opened)
        try:
            self.roster.find_drafters(opened)
            events.put_nowait(started(opened, self.engine))
            request = opened.session.request
            sizes = count_of(len(request.prompt_ids), "token"), count_of(len(request.received), "byte")
            opened.log.info("%s of prompt, %s received before", *sizes)
            await self._steps.prefill(opened)
            while (finish_reason := await self._step(opened, events, meter)) is None:
                pass
            events.put_nowait(finished(opened, finish_reason, drafters_connected=len(self.roster.links)))
            self._rules.observe_session(opened)
            meter.finished(finish_reason)
            opened.log.info("ends with %s (%s)", count_of(len(opened.session.token_ids), "token"), finish_reason)
        except asyncio.CancelledError:
            opened.log.info("left after %s", count_of(len(opened.session.token_ids), "token"))
            meter.left()
            raise
        except DragomanError as error:
            opened.log.warning("failed: %s", error)
            events.put_nowait(error)
        except Exception as error:
            opened.log.exception("failed")
            events.put_nowait(error)
        finally:
            meter.end()
            await asyncio.shield(self._close(opened))

    async def _step(self, opened: OpenSession, events: Events, meter: SessionMeter) -> FinishReason | None:
        """Pass on what one verify step brought, while the next one may be running; what lies between them if it is
        not. Why the completion ended, if it did."""
        report = await self._steps.step(opened)
        meter.stepped(report)
        self.committed_tokens += report.new_tokens
        events.put_nowait(report.chunk)
        if report.finish_reason is None and not report.goes_on and not opened.session.replaying:
            if opened.drafters.replay_ended():
                self.roster.find_drafters(opened)
                opened.replan()
            await opened.wait_for_draft()
        return report.finish_reason

    async def _close(self, opened: OpenSession) -> None:
        self.roster.release(opened)
        await self._steps.close(opened)  # after any step still running
        self._sessions.pop(opened.name, None)
        self.metrics.stand()

    # ---- going out of service -----------------------------------------------------------------------------------

    def drain(self, draining: bool = True) -> None:
        """Refuse new sessions, or take them again; those that run go on. One that stops cannot be called back."""
        if draining != self.draining and not self.stopping and not self._local_only:
            log.info("drains: no new sessions" if draining else "takes sessions again")
            self.draining = draining

    def hand_over(self) -> None:
        """End the sessions that run, after what they have committed, so that their clients resume elsewhere. Those of
        callers in this process, who cannot, go on until it stops."""
        error = DrainingError("this verifier hands its sessions over", remedy="resume with the bytes received")
        for name, opened in self._sessions.items():
            if name in self._events and (self.stopping or name not in self._local):  # else its client is gone
                opened.log.info("handed over")
                self._events[name].put_nowait(error)

    async def stop_serving(self, grace: float) -> None:
        """For good: sessions may end by themselves for ``grace`` seconds, then they are handed over."""
        self.drain()
        self.stopping = True
        deadline = time.monotonic() + grace
        while self._events and time.monotonic() < deadline:
            await asyncio.sleep(min(0.02, grace))
        self.hand_over()

    # ---- the coordinator, and whoever asks ------------------------------------------------------------------------

    def order_plan(self, session: str, plan: SpeculationPlan, now: float) -> None:
        """How far to speculate; stands for a while, then the session plans by itself."""
        if (opened := self._sessions.get(session)) is not None:
            opened.planner.order(plan, now)

    def describe(self) -> VerifierStatus:
        """How it stands."""
        return described(self.engine, self.roster.links, sessions=len(self._sessions))
