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

from speculation.errors import DragomanError, DrainingError, LimitExceededError
from speculation.planning.fits import LinearFit
from speculation.planning.patience import Patience
from speculation.planning.plan import PlanLimits
from speculation.planning.trial import Trial
from speculation.plural import count_of
from speculation.protocol.generation import Finished, FinishReason, GenerationEvent, GenerationRequest
from speculation.protocol.messages import SpeculationPlan
from speculation.protocol.status import VerifierStatus
from speculation.sampling.params import Rule
from speculation.sampling.race import RaceNoise
from speculation.verification.draft_verifier import DraftVerifier
from transport.limits import WireLimits
from transport.version import VERSION
from verifier_service.admission import admit, check_width
from verifier_service.drafter_trust import DrafterTrust
from verifier_service.engine import Engine
from verifier_service.engine_turn import EngineTurn
from verifier_service.metrics import Instruments, NoInstruments, SessionMeter, VerifierMetrics
from verifier_service.open_session import OpenSession
from verifier_service.planning_budget import PlanningBudget
from verifier_service.quotas import Quotas
from verifier_service.roster import Roster
from verifier_service.rule_choice import RuleChoice
from verifier_service.session_messages import finished, started
from verifier_service.session_planner import Pacing, SessionPlanner
from verifier_service.session_run import SessionRun
from verifier_service.shared_step import Drawing
from verifier_service.step_scheduler import StepScheduler

log = logging.getLogger(__name__)
#: What waits for a client: the session's text, or what it ended with.
Events = asyncio.Queue[GenerationEvent | BaseException]


class Verifier:
    """A target that serves completions.

    Use from one event loop. ``lookup``: sessions also look up in their own text how it goes on.

    Raises InputError for a plan of steps that are too wide for the engine.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        plan: SpeculationPlan | None = None,
        limits: WireLimits | None = None,
        adaptive: bool = True,
        lookup: bool = True,
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
        self._adaptive = adaptive
        self._lookup = lookup
        self._step_fit, self._planning_budget = LinearFit(), PlanningBudget()
        self.pacing = {rule: self._new_pacing(rule) for rule in Rule.concrete()}
        self._noise = RaceNoise(engine.tokenizer.vocab, device=engine.device_name)
        #: Whether new sessions are refused.
        self.draining = False
        self._stopping = False
        self._sessions: dict[str, OpenSession] = {}
        self._events: dict[str, Events] = {}
        self.metrics = VerifierMetrics(instruments or NoInstruments())
        #: Of the identities that call.
        self.quotas = Quotas(max_sessions_each, refused=self.metrics.refused_by)
        self.roster = Roster(
            engine=engine,
            limits=self.limits,
            sessions=self._sessions,
            metrics=self.metrics,
            trust=trust or DrafterTrust(),
        )
        self._rules = RuleChoice()
        self._turn = EngineTurn()
        self._steps = StepScheduler(
            engine,
            Drawing.of(engine, self._noise),
            turn=self._turn,
            send=self.roster.send,
            on_preempted=lambda: self.metrics.preemptions(1),
        )

    def _new_pacing(self, rule: Rule) -> Pacing:
        """Whether drafting pays is learned where it may not: under rules whose drafts are met by chance when late."""
        patience = Patience(self._plan.patience, learns=self._adaptive)
        return Pacing(patience, Trial() if rule.proposes and self._adaptive else None)

    @property
    def sessions(self) -> list[OpenSession]:
        return list(self._sessions.values())

    def shutdown(self) -> None:
        """End the engine's thread, and with it all sessions; those that waited for it to close them are closed here."""
        self._steps.shutdown()
        for opened in self._sessions.values():
            opened.close()

    # ---- clients ----------------------------------------------------------------------------------------------

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """Serve one request. Raises InputError, DrainingError or LimitExceededError before anything is yielded if it
        cannot be served, DrainingError later if the session is handed over, DivergedError if it cannot be resumed.

        Closing the iterator (the client went away) ends the session and frees its KV cache.
        """
        opened = self._open(request)
        events = self._events[opened.name] = Events()
        # A task of its own, so that a client that reads slowly holds up nothing, least of all its KV cache.
        pump = asyncio.create_task(self._serve(opened, events))
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
            pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(asyncio.gather(pump, return_exceptions=True))

    def _open(self, request: GenerationRequest) -> OpenSession:
        if self.draining:
            raise DrainingError("this verifier takes no more sessions", remedy="ask another of the same model")
        if len(self._sessions) >= self.max_sessions:
            raise LimitExceededError(
                f"no room for another text: {len(self._sessions)} of at most {count_of(self.max_sessions, 'session')}",
                remedy="try again later",
            )
        vocab = self.engine.tokenizer.vocab
        session = admit(
            request,
            self.engine,
            plan=self._plan,
            pool_bytes=self.limits.pool_bytes,
            lookup=self._lookup,
            auto=lambda: self._rules.choose(link for link in self.roster.links if link.trusted),
        )
        rule, limits = session.request.rule, lambda: self.plan_limits
        opened = OpenSession(
            name=f"s-{secrets.token_hex(8)}",
            prompt=request.prompt,
            session=session,
            run=SessionRun(session, DraftVerifier.of(session.request, vocab, self._noise), self.engine),
            planner=SessionPlanner(
                self._plan,
                self._step_fit,
                adaptive=self._adaptive,
                limits=limits,
                rule=rule,
                budget=self._planning_budget,
                sessions=lambda: max(1, len(self._sessions)),
            ),
            pacing=self.pacing[rule],
            turn=self._turn,
            wants_drafters=self._plan.width > 0 and request.draft,
            priority=request.priority,
            vocab_hash=vocab.content_hash,
        )
        self._sessions[opened.name] = opened
        self.metrics.sessions(len(self._sessions))
        return opened

    async def _serve(self, opened: OpenSession, events: Events) -> None:
        """Step the session to its end, passing on what each step brings."""
        meter = SessionMeter(self.metrics, opened)
        try:
            self.roster.find_drafters(opened)
            events.put_nowait(started(opened, self.engine))
            received = count_of(len(opened.session.request.received), "byte")
            prompt_tokens = count_of(len(opened.session.request.prompt_ids), "token")
            opened.log.info("%s of prompt, %s received before", prompt_tokens, received)
            await self._steps.prefill(opened)
            finish_reason = None
            while finish_reason is None:
                finish_reason = await self._step(opened, events, meter)
            events.put_nowait(finished(opened, finish_reason, drafters_connected=len(self.roster.links)))
            self._rules.observe_session(opened)
            meter.finished()
            completion_tokens = count_of(len(opened.session.token_ids), "token")
            opened.log.info("ends with %s (%s)", completion_tokens, finish_reason)
        except asyncio.CancelledError:
            opened.log.info("left after %s", count_of(len(opened.session.token_ids), "token"))
            raise
        except DragomanError as error:
            opened.log.warning("failed: %s", error)
            events.put_nowait(error)
        except Exception as error:
            opened.log.exception("failed")
            events.put_nowait(error)
        finally:
            meter.flush()
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
        # After any step still running: the engine's thread works in order.
        await self._steps.close(opened)
        self._sessions.pop(opened.name, None)
        self.metrics.sessions(len(self._sessions))

    # ---- going out of service -----------------------------------------------------------------------------------

    def drain(self, draining: bool = True) -> None:
        """Refuse new sessions, or take them again; those that run go on. One that stops cannot be called back."""
        if draining != self.draining and not self._stopping:
            log.info("drains: no new sessions" if draining else "takes sessions again")
            self.draining = draining

    def hand_over(self) -> None:
        """End the sessions that run, after what they have committed, so that their clients resume elsewhere."""
        error = DrainingError("this verifier hands its sessions over", remedy="resume with the bytes received")
        for name, opened in self._sessions.items():
            if name in self._events:  # else its client is gone
                opened.log.info("handed over")
                self._events[name].put_nowait(error)

    async def stop_serving(self, grace: float) -> None:
        """For good: sessions may end by themselves for ``grace`` seconds, then they are handed over."""
        self.drain()
        self._stopping = True
        deadline = time.monotonic() + grace
        while self._events and time.monotonic() < deadline:
            await asyncio.sleep(min(0.02, grace))
        self.hand_over()

    # ---- the coordinator ------------------------------------------------------------------------------------------

    def order_plan(self, session: str, plan: SpeculationPlan, now: float) -> None:
        """How far to speculate; stands for a while, then the session plans by itself."""
        opened = self._sessions.get(session)
        if opened is not None:
            opened.planner.order(plan, now)

    # ---- figures ----------------------------------------------------------------------------------------------

    def describe(self) -> VerifierStatus:
        """How it stands."""
        engine = self.engine
        return VerifierStatus(
            version=VERSION,
            model=engine.name,
            vocab_size=engine.vocab_size,
            vocab_hash=engine.tokenizer.vocab.content_hash,
            context_length=engine.context_length,
            dtype=engine.dtype_name,
            device=engine.device_name,
            drafters=tuple(link.status() for link in self.roster.links),
            sessions=len(self._sessions),
            kv_cache_bytes=engine.kv_cache_bytes,
            parameter_bytes=engine.parameter_bytes,
        )
