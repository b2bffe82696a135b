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
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from protos import codec
from protos.dragoman.v1 import dragoman_pb2 as pb
from protos.transport import PROTOCOL_VERSION, WireLimits
from protos.version import VERSION
from speculation.errors import LimitExceededError
from speculation.messages import SpeculationPlan
from speculation.patience import Patience
from speculation.race import RaceNoise
from speculation.target_session import FinishReason
from speculation.telemetry import LinearFit
from verifier_service.admission import admit
from verifier_service.engine import Engine
from verifier_service.open_session import OpenSession, StepReport
from verifier_service.planning import SessionPlanner
from verifier_service.roster import Roster

log = logging.getLogger(__name__)
_T = TypeVar("_T")

_FINISH = {FinishReason.STOP: pb.FINISH_REASON_STOP, FinishReason.LENGTH: pb.FINISH_REASON_LENGTH}


class Verifier:
    """See the module. Use from one event loop."""

    def __init__(
        self,
        engine: Engine,
        *,
        plan: SpeculationPlan | None = None,
        limits: WireLimits | None = None,
        adaptive: bool = True,
        max_sessions: int = 64,
    ) -> None:
        self.engine = engine
        self.limits = limits or WireLimits()
        self._plan = plan or SpeculationPlan()
        self.max_sessions = max_sessions
        self.committed_tokens = 0
        self._adaptive = adaptive
        self._step_fit = LinearFit()
        self._patience = Patience(self._plan.patience, learns=adaptive)
        self._noise = RaceNoise(engine.tokenizer.vocab, device=engine.device_name)
        self._sessions: dict[str, OpenSession] = {}
        self.roster = Roster(engine, self.limits, self._sessions)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")

    @property
    def sessions(self) -> list[OpenSession]:
        return list(self._sessions.values())

    def shutdown(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _in_engine(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # ---- clients ----------------------------------------------------------------------------------------------

    async def generate(self, request: pb.GenerateRequest) -> AsyncGenerator[pb.GenerateResponse, None]:
        """Serve one request. Raises InputError before anything is yielded if it cannot be served.

        Closing the iterator (the client went away) ends the session and frees its KV cache.
        """
        opened = self._open(request)
        responses: asyncio.Queue[pb.GenerateResponse | BaseException] = asyncio.Queue()
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
            pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(asyncio.gather(pump, return_exceptions=True))

    def _open(self, request: pb.GenerateRequest) -> OpenSession:
        codec.check_version(request.protocol_version, who="the client")
        if len(self._sessions) >= self.max_sessions:
            raise LimitExceededError(
                f"{len(self._sessions)} sessions are open, which is the limit", remedy="try again later"
            )
        prompt, session = admit(request, self.engine, self._noise, plan=self._plan, limits=self.limits)
        planner = SessionPlanner(self._plan, self._step_fit, adaptive=self._adaptive)
        assisted = self._plan.width > 0 and not request.no_draft
        name = f"s-{secrets.token_hex(8)}"
        opened = OpenSession(name, prompt, session, self.engine, planner, self._patience, assisted=assisted)
        self._sessions[opened.name] = opened
        return opened

    async def _serve(self, opened: OpenSession, responses: asyncio.Queue[pb.GenerateResponse | BaseException]) -> None:
        """Step the session to its end, passing on what each step brings."""
        try:
            self.roster.find_drafters(opened)
            prompt_tokens = len(opened.session.request.prompt_ids)
            started = pb.GenerateStarted(session=opened.name, prompt_tokens=prompt_tokens, drafters=len(opened.links))
            responses.put_nowait(pb.GenerateResponse(started=started))
            finish_reason = None
            while finish_reason is None:
                report = await self._in_engine(opened.step)
                self.roster.send(opened, report)
                self.committed_tokens += len(report.token_ids)
                responses.put_nowait(pb.GenerateResponse(chunk=_chunk(report)))
                finish_reason = report.finish_reason
                if finish_reason is None:
                    opened.replan()
                    await opened.wait_for_draft()
            finished = pb.GenerateFinished(
                finish_reason=_FINISH[finish_reason],
                prompt_tokens=prompt_tokens,
                completion_tokens=len(opened.session.token_ids),
                speculation=opened.stats(),
            )
            responses.put_nowait(pb.GenerateResponse(finished=finished))
        except Exception as error:
            log.exception("session %s failed", opened.name)
            responses.put_nowait(error)
        finally:
            await asyncio.shield(self._close(opened))

    async def _close(self, opened: OpenSession) -> None:
        self.roster.release(opened)
        # After any step still running: the engine's thread works in order.
        await self._in_engine(opened.close)
        self._sessions.pop(opened.name, None)

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
    runs = [pb.TextRun(text=run.text, drafted=run.drafted) for run in report.runs]
    return pb.TextChunk(runs=runs, token_ids=report.token_ids)
