"""The verifier: sessions of clients, drafters that attach to them, one engine thread that steps them in turn.

The target never waits for a stranger: a session steps with whatever its pool holds, and nothing a drafter does or
omits can hold it up. All engine work goes through one single-threaded executor, first come first served, so every
session with work gets its turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from protos import codec
from protos.dragoman.v1 import dragoman_pb2 as pb
from protos.transport import PROTOCOL_VERSION, WireLimits
from speculation.errors import DragomanError, LimitExceededError, ProtocolError
from speculation.messages import Resync, SpeculationPlan
from speculation.patience import Patience
from speculation.race import RaceNoise
from speculation.target_session import FinishReason
from speculation.telemetry import LinearFit
from verifier_service.admission import admit
from verifier_service.drafter_link import DrafterLink
from verifier_service.engine import Engine
from verifier_service.open_session import Join, OpenSession, StepReport
from verifier_service.planning import SessionPlanner

log = logging.getLogger(__name__)
_T = TypeVar("_T")

#: Between two pings of a link that has sessions, and of one that has none.
PING_SECONDS, IDLE_PING_SECONDS = 0.25, 1.0

_FINISH = {FinishReason.STOP: pb.FINISH_REASON_STOP, FinishReason.LENGTH: pb.FINISH_REASON_LENGTH}


class Verifier:
    """See the module. Use from one event loop."""

    #: Closed sessions remembered, so that a span that crossed the end of its session is not held against anyone.
    REMEMBERED_SESSIONS = 1024

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
        self._max_sessions = max_sessions
        self._adaptive = adaptive
        self._step_fit = LinearFit()
        self._patience = Patience(self._plan.patience, learns=adaptive)
        self._noise = RaceNoise(engine.tokenizer.vocab, device=engine.device_name)
        self._sessions: dict[str, OpenSession] = {}
        self._closed: deque[str] = deque(maxlen=self.REMEMBERED_SESSIONS)
        self._links: list[DrafterLink] = []
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")

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
        if len(self._sessions) >= self._max_sessions:
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
            for link in self._links:
                self._join(opened, link)
            prompt_tokens = len(opened.session.request.prompt_ids)
            started = pb.GenerateStarted(session=opened.name, prompt_tokens=prompt_tokens, drafters=len(opened.links))
            responses.put_nowait(pb.GenerateResponse(started=started))
            finish_reason = None
            while finish_reason is None:
                report = await self._in_engine(opened.step)
                self._send(opened, report)
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
        closed = pb.AssistResponse(closed=pb.SessionClosed(session=opened.name))
        opened.assisted = False  # another session's end must not bring it new drafters
        for link in tuple(opened.links):
            self._leave(opened, link)
            link.send(closed)
            for other in self._sessions.values():  # its place is free for a session that had to do without
                if other is not opened:
                    self._join(other, link)
        self._closed.append(opened.name)
        # After any step still running: the engine's thread works in order.
        await self._in_engine(opened.close)
        self._sessions.pop(opened.name, None)

    # ---- drafters ---------------------------------------------------------------------------------------------

    def attach(self, hello: pb.Hello) -> DrafterLink:
        """A drafter dialled in. Raises VersionMismatchError or InputError for one that cannot be worked with."""
        codec.check_hello(hello)
        link = DrafterLink(hello)
        tokenizer = self.engine.tokenizer
        welcome = pb.Welcome(
            protocol_version=PROTOCOL_VERSION,
            model=self.engine.name,
            vocab_size=self.engine.vocab_size,
            vocab_hash=tokenizer.vocab.content_hash,
            limits=codec.limits_to_wire(self.limits),
        )
        link.send(pb.AssistResponse(welcome=welcome))
        self._links.append(link)
        for opened in self._sessions.values():
            self._join(opened, link)
        log.info("drafter %s (%s) joined", hello.name, hello.model)
        return link

    def detach(self, link: DrafterLink) -> None:
        """The drafter's stream ended. Its spans stay in the pools: they are as good as before."""
        self._links.remove(link)
        for name in tuple(link.sessions):
            self._leave(self._sessions[name], link)
        log.info("drafter %s left", link.hello.name)

    async def keep_measuring(self, link: DrafterLink) -> None:
        """Ping the drafter: to know how far away it is, and to let it know that the link is alive."""
        while True:
            link.ping()
            await asyncio.sleep(PING_SECONDS if link.sessions else IDLE_PING_SECONDS)

    def receive(self, link: DrafterLink, message: pb.AssistRequest) -> None:
        """Route a drafter's message. A malformed one is refused and counted, the session goes on.

        Raises LimitExceededError when the drafter has sent more malformed messages than it may.
        """
        try:
            self._route(link, message)
        except DragomanError as error:
            link.rejected_messages += 1
            log.warning("drafter %s: refused %s", link.hello.name, error)
            if link.rejected_messages > self.limits.malformed_messages:
                raise LimitExceededError(
                    f"drafter {link.hello.name!r} sent {link.rejected_messages} malformed messages; the last: {error}"
                ) from error

    def _route(self, link: DrafterLink, message: pb.AssistRequest) -> None:
        match message.WhichOneof("message"):
            case "span":
                link.spans += 1
                opened = self._offered(link, message.span.session)
                if opened is not None:
                    opened.bytes_up += message.ByteSize()
                    committed = opened.session.committed_length
                    opened.put(link, codec.span_from_wire(message.span, self.limits, committed=committed))
            case "resync":
                opened = self._offered(link, message.resync.session)
                if opened is not None:
                    opened.bytes_up += message.ByteSize()
                    opened.put(link, Resync(message.resync.offset))
            case "decline":
                opened = self._offered(link, message.decline.session)
                if opened is not None:
                    log.info("drafter %s declines: %s", link.hello.name, message.decline.reason)
                    self._leave(opened, link)
            case "pong":
                link.on_pong(message.pong)
            case "hello":
                raise ProtocolError("a second hello on one stream")
            case _:
                raise ProtocolError("an empty or unknown message")

    def _offered(self, link: DrafterLink, name: str) -> OpenSession | None:
        """The session if the drafter takes part in it, None if it is over, else ProtocolError."""
        if name in link.sessions:
            return self._sessions[name]
        if name in self._closed:
            return None
        raise ProtocolError(f"session {name[:40]!r} is unknown or was not offered to this drafter")

    def _join(self, opened: OpenSession, link: DrafterLink) -> None:
        if opened.assisted and link.has_room and link not in opened.links:
            link.sessions.add(opened.name)
            opened.links.add(link)
            opened.put(link, Join())

    def _leave(self, opened: OpenSession, link: DrafterLink) -> None:
        link.sessions.discard(opened.name)
        opened.links.discard(link)

    def _send(self, opened: OpenSession, report: StepReport) -> None:
        for addressee, message in report.messages:
            for link in (addressee,) if addressee is not None else tuple(opened.links):
                if link in opened.links:
                    opened.bytes_down += message.ByteSize()
                    link.send(message)

    async def drain(self, reconnect_after_ms: int) -> None:
        """Tell the drafters to dial again later."""
        for link in self._links:
            link.send(pb.AssistResponse(drain=pb.Drain(reconnect_after_ms=reconnect_after_ms)))

    # ---- figures ----------------------------------------------------------------------------------------------

    def describe(self) -> pb.DescribeResponse:
        engine = self.engine
        return pb.DescribeResponse(
            protocol_version=PROTOCOL_VERSION,
            version=importlib.metadata.version("dragoman"),
            model=engine.name,
            vocab_size=engine.vocab_size,
            vocab_hash=engine.tokenizer.vocab.content_hash,
            context_length=engine.context_length,
            dtype=engine.dtype_name,
            device=engine.device_name,
            drafters=[link.status() for link in self._links],
            sessions=len(self._sessions),
            kv_cache_bytes=sum(opened.kv_cache_bytes for opened in self._sessions.values()),
            parameter_bytes=engine.parameter_bytes,
        )


def _chunk(report: StepReport) -> pb.TextChunk:
    runs = [pb.TextRun(text=run.text, drafted=run.drafted) for run in report.runs]
    return pb.TextChunk(runs=runs, token_ids=report.token_ids)
