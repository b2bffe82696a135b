"""The verifier: sessions of clients, drafters that attach to them, one engine thread that steps them in turn.

The target never waits for a stranger: a session steps with whatever its pool holds, and nothing a drafter does or
omits can hold it up. All engine work goes through one single-threaded executor, first come first served, so every
session with work gets its turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import DragomanError, DrainingError, InputError, LimitExceededError
from speculation.planning.fits import LinearFit
from speculation.planning.patience import Patience
from speculation.planning.plan import PlanLimits
from speculation.planning.trial import Trial
from speculation.plural import count_of
from speculation.protocol.messages import SpeculationPlan
from speculation.sampling.params import Rule
from speculation.sampling.race import RaceNoise
from speculation.sessions.instructions import FinishReason
from speculation.verification.draft_verifier import DraftVerifier
from transport import codec
from transport.limits import PROTOCOL_VERSION, WireLimits
from transport.version import VERSION
from verifier_service.admission import admit
from verifier_service.engine import Engine
from verifier_service.metrics import Instruments, NoInstruments, SessionMeter, VerifierMetrics
from verifier_service.open_session import OpenSession, StepReport
from verifier_service.roster import Roster
from verifier_service.rule_choice import RuleChoice
from verifier_service.session_planner import SessionPlanner

log = logging.getLogger(__name__)
_T = TypeVar("_T")
#: What waits for a client: the session's text, or what it ended with.
Responses = asyncio.Queue[pb.GenerateResponse | BaseException]

_FINISH = {FinishReason.STOP: pb.FINISH_REASON_STOP, FinishReason.LENGTH: pb.FINISH_REASON_LENGTH}


class Verifier:
    """See the module. Use from one event loop. ``lookup``: sessions also look up in their own text how it goes on.

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
        instruments: Instruments | None = None,
    ) -> None:
        self.engine = engine
        self.limits = limits or WireLimits()
        self._plan = plan or SpeculationPlan()
        if self._plan.width > engine.max_draft_tokens:
            raise InputError(
                "width",
                self._plan.width,
                f"is too much for {engine.dtype_name} on {engine.device_name}: the text would depend on the drafts",
                remedy=f"{engine.max_draft_tokens} at most",
            )
        self.max_sessions = max_sessions
        #: What no adaptive plan exceeds; a coordinator may set others.
        self.plan_limits = PlanLimits()
        self.committed_tokens = 0
        self._adaptive = adaptive
        self._lookup = lookup
        self._step_fit = LinearFit()
        self._patience = {rule: Patience(self._plan.patience, learns=adaptive) for rule in Rule.concrete()}
        #: Whether drafting pays, where it may not: under the rules whose drafts are met by chance alone when late.
        self._pays = {rule: Trial() for rule in Rule.concrete() if rule.proposes and adaptive}
        self._noise = RaceNoise(engine.tokenizer.vocab, device=engine.device_name)
        #: Whether new sessions are refused.
        self.draining = False
        self._stopping = False
        self._sessions: dict[str, OpenSession] = {}
        self._responses: dict[str, Responses] = {}
        self.metrics = VerifierMetrics(instruments or NoInstruments())
        self.roster = Roster(engine, self.limits, self._sessions, self.metrics)
        self._rules = RuleChoice()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")

    @property
    def sessions(self) -> list[OpenSession]:
        return list(self._sessions.values())

    def shutdown(self) -> None:
        """End the engine's thread, and with it all sessions; those that waited for it to close them are closed here."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        for opened in self._sessions.values():
            opened.close()

    async def _in_engine(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # ---- clients ----------------------------------------------------------------------------------------------

    async def generate(self, request: pb.GenerateRequest) -> AsyncGenerator[pb.GenerateResponse, None]:
        """Serve one request. Raises InputError, DrainingError or LimitExceededError before anything is yielded if it
        cannot be served, DrainingError later if the session is handed over, DivergedError if it cannot be resumed.

        Closing the iterator (the client went away) ends the session and frees its KV cache.
        """
        opened = self._open(request)
        responses = self._responses[opened.name] = Responses()
        # A task of its own, so that a client that reads slowly holds up nothing, least of all its KV cache.
        pump = asyncio.create_task(self._serve(opened, responses))
        try:
            while True:
                response = await responses.get()
                if isinstance(response, BaseException):
                    raise response
                yield response
                if response.HasField("finished"):
                    return
        finally:
            self._responses.pop(opened.name, None)
            pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(asyncio.gather(pump, return_exceptions=True))

    def _open(self, request: pb.GenerateRequest) -> OpenSession:
        codec.check_version(request.protocol_version, who="the client")
        if self.draining:
            raise DrainingError("this verifier takes no more sessions", remedy="ask another of the same model")
        if len(self._sessions) >= self.max_sessions:
            raise LimitExceededError(
                f"no room for another text: {len(self._sessions)} of at most {count_of(self.max_sessions, 'session')}",
                remedy="try again later",
            )
        prompt, session = admit(
            request,
            self.engine,
            plan=self._plan,
            limits=self.limits,
            lookup=self._lookup,
            auto=lambda: self._rules.choose(self.roster.links),
        )
        rule, limits = session.request.rule, lambda: self.plan_limits
        planner = SessionPlanner(self._plan, self._step_fit, adaptive=self._adaptive, limits=limits, rule=rule)
        assisted = self._plan.width > 0 and not request.no_draft
        name = f"s-{secrets.token_hex(8)}"
        opened = OpenSession(
            name,
            prompt,
            session,
            DraftVerifier.of(session.request, self.engine.tokenizer.vocab, self._noise),
            self.engine,
            planner,
            self._patience[rule],
            self._pays.get(rule),
            assisted=assisted,
        )
        self._sessions[opened.name] = opened
        self.metrics.sessions(len(self._sessions))
        return opened

    async def _serve(self, opened: OpenSession, responses: Responses) -> None:
        """Step the session to its end, passing on what each step brings."""
        meter = SessionMeter(self.metrics, opened)
        try:
            self.roster.find_drafters(opened)
            prompt_tokens = len(opened.session.request.prompt_ids)
            responses.put_nowait(pb.GenerateResponse(started=self._started(opened)))
            received = count_of(len(opened.session.request.received), "byte")
            opened.log.info("%s of prompt, %s received before", count_of(prompt_tokens, "token"), received)
            finish_reason, counted = None, 0
            while finish_reason is None:
                report = await self._in_engine(opened.step)
                self.roster.send(opened, report)
                meter.stepped(opened.new_tokens - counted)
                self.committed_tokens += opened.new_tokens - counted
                counted = opened.new_tokens
                responses.put_nowait(pb.GenerateResponse(chunk=_chunk(report)))
                finish_reason = report.finish_reason
                if finish_reason is None and not opened.session.replaying:
                    if opened.begin_drafting():
                        self.roster.find_drafters(opened)
                    opened.replan()
                    await opened.wait_for_draft()
            finished = pb.GenerateFinished(
                finish_reason=_FINISH[finish_reason],
                prompt_tokens=prompt_tokens,
                completion_tokens=len(opened.session.token_ids),
                speculation=opened.stats(drafters_connected=len(self.roster.links)),
                replayed_tokens=opened.session.replayed_tokens,
            )
            match opened.session.stopped_by:
                case bytes() as stop:
                    finished.stop_string = stop
                case int() as token:
                    finished.stop_token = token
            responses.put_nowait(pb.GenerateResponse(finished=finished))
            self._rules.observe(opened)
            meter.finished()
            opened.log.info("ends with %s (%s)", count_of(finished.completion_tokens, "token"), finish_reason)
        except asyncio.CancelledError:
            opened.log.info("left after %s", count_of(len(opened.session.token_ids), "token"))
            raise
        except DragomanError as error:
            opened.log.warning("failed: %s", error)
            responses.put_nowait(error)
        except Exception as error:
            opened.log.exception("failed")
            responses.put_nowait(error)
        finally:
            meter.flush()
            await asyncio.shield(self._close(opened))

    async def _close(self, opened: OpenSession) -> None:
        self.roster.release(opened)
        # After any step still running: the engine's thread works in order.
        await self._in_engine(opened.close)
        self._sessions.pop(opened.name, None)
        self.metrics.sessions(len(self._sessions))

    def _started(self, opened: OpenSession) -> pb.GenerateStarted:
        request, engine = opened.session.request, self.engine
        return pb.GenerateStarted(
            session=opened.name,
            prompt_tokens=len(request.prompt_ids),
            drafters=len(opened.links),
            received_bytes=len(request.received),
            model=engine.name,
            vocab_hash=engine.tokenizer.vocab.content_hash,
            dtype=engine.dtype_name,
            rule=codec.rule_to_wire(request.rule),
        )

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
            if name in self._responses:  # else its client is gone
                opened.log.info("handed over")
                self._responses[name].put_nowait(error)

    async def stop_serving(self, grace: float) -> None:
        """For good: sessions may end by themselves for ``grace`` seconds, then they are handed over."""
        self.drain()
        self._stopping = True
        deadline = time.monotonic() + grace
        while self._responses and time.monotonic() < deadline:
            await asyncio.sleep(min(0.02, grace))
        self.hand_over()

    # ---- the coordinator ------------------------------------------------------------------------------------------

    def order_plan(self, session: str, plan: SpeculationPlan, now: float) -> None:
        """How far to speculate; stands for a while, then the session plans by itself."""
        opened = self._sessions.get(session)
        if opened is not None:
            opened.planner.order(plan, now)

    # ---- figures ----------------------------------------------------------------------------------------------

    def describe(self) -> pb.DescribeResponse:
        engine = self.engine
        return pb.DescribeResponse(
            protocol_version=PROTOCOL_VERSION,
            version=VERSION,
            model=engine.name,
            vocab_size=engine.vocab_size,
            vocab_hash=engine.tokenizer.vocab.content_hash,
            context_length=engine.context_length,
            dtype=engine.dtype_name,
            device=engine.device_name,
            drafters=[link.status() for link in self.roster.links],
            sessions=len(self._sessions),
            kv_cache_bytes=sum(opened.kv_cache_bytes for opened in self._sessions.values()),
            parameter_bytes=engine.parameter_bytes,
        )


def _chunk(report: StepReport) -> pb.TextChunk:
    runs = [
        pb.TextRun(
            text=run.text,
            drafted=run.drafted,
            source=codec.source_to_wire(run.source) if run.source is not None else pb.DRAFT_SOURCE_UNSPECIFIED,
        )
        for run in report.runs
    ]
    return pb.TextChunk(runs=runs, token_ids=report.token_ids)
