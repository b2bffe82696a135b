"""The drafter on the wire: it dials out, drafts for what it is offered, and dials again whenever the link ends.

Edge machines sit behind NAT, so the drafter is always the client. One stream carries all sessions. A link that
ended costs nothing but time: on the next one the verifier offers the running sessions afresh.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

import grpc

from drafter_service.desk import Desk, Message
from drafter_service.draft_source import Drafter, LearnsVocabularies
from drafter_service.waiting_offers import WaitingOffers
from protos import codec
from protos.channels import open_channel
from protos.dragoman.v1 import dragoman_pb2 as pb
from protos.dragoman.v1 import dragoman_pb2_grpc as pb_grpc
from protos.status import error_of
from protos.transport import PROTOCOL_VERSION, Address, Backoff
from protos.version import VERSION
from speculation.errors import ConnectionFailedError, DragomanError, InputError, VersionMismatchError
from speculation.messages import SessionOffer, Span, Verdict

log = logging.getLogger(__name__)

#: Of the running figure of seconds per drafted token.
_SMOOTHING = 0.1
#: The verifier pings: a link that is silent for so long, in seconds, is dead, though TCP would wait for minutes.
SILENCE_SECONDS = 3.0


class DrafterClient:
    """Serves one verifier with one drafter until cancelled."""

    def __init__(
        self,
        drafter: Drafter,
        verifier: Address,
        *,
        name: str,
        max_sessions: int = 4,
        seconds_per_token: float = 0.0,
        instance: str = "",
        thread: ThreadPoolExecutor | None = None,
        backoff: Backoff | None = None,
        on_connected: Callable[[pb.Welcome], None] = lambda welcome: None,
    ) -> None:
        self.attached = False
        self._drafter = drafter
        self._verifier = verifier
        self._backoff = backoff or Backoff()
        self._on_connected = on_connected
        self._hello = pb.Hello(
            protocol_version=PROTOCOL_VERSION,
            name=name,
            model=drafter.model_name,
            vocab_size=drafter.vocab_size,
            vocab_hash=drafter.vocab_hash,
            max_sessions=max_sessions,
            seconds_per_token=seconds_per_token,
            version=VERSION,
            instance=instance,
        )
        self._failures = 0
        self._pause = 0.0
        self._link: _Link | None = None
        # One thread: a drafter is used from one thread at a time, over all connections.
        self._own_thread = thread is None
        self._thread = thread or ThreadPoolExecutor(max_workers=1, thread_name_prefix="drafter")

    @property
    def sessions(self) -> int:
        """Sessions that it drafts for now."""
        return self._link.sessions if self._link is not None else 0

    @property
    def seconds_per_token(self) -> float:
        """Time per drafted token as of now."""
        return self._link.seconds_per_token if self._link is not None else self._hello.seconds_per_token

    async def run(self) -> None:
        """Dial, assist, dial again. Returns only by cancellation.

        Raises VersionMismatchError or InputError if the verifier refuses this drafter: dialling again cannot help.
        """
        try:
            while True:
                try:
                    await self._assist_once()
                    log.info("the verifier at %s ended the stream; dialling again", self._verifier)
                except (VersionMismatchError, InputError):
                    raise
                except DragomanError as error:
                    # Said once per outage, not once per attempt.
                    log.log(logging.WARNING if self._failures == 0 else logging.DEBUG, "%s; dialling again", error)
                await asyncio.sleep(max(self._pause, self._backoff.delay(self._failures)))
                self._failures += 1
                self._pause = 0.0
        finally:
            if self._own_thread:
                self._thread.shutdown(wait=False, cancel_futures=True)

    async def _assist_once(self) -> None:
        async with open_channel(self._verifier) as channel:
            stub = pb_grpc.VerifierServiceStub(channel)
            outbox: asyncio.Queue[pb.AssistRequest] = asyncio.Queue()
            outbox.put_nowait(pb.AssistRequest(hello=self._hello))
            call = stub.Assist(_drain(outbox))
            link = _Link(self._drafter, outbox, self._thread, self._hello.seconds_per_token)
            self._link = link
            worker = asyncio.create_task(link.work())
            reader = asyncio.create_task(self._read(call, link))
            try:
                done, _ = await asyncio.wait((worker, reader), return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            except grpc.RpcError as error:
                raise error_of(error, self._verifier) from error
            finally:
                self.attached, self._link = False, None
                worker.cancel()
                reader.cancel()
                call.cancel()
                await asyncio.gather(worker, reader, return_exceptions=True)
                await link.close()

    async def _read(self, call: AsyncIterator[pb.AssistResponse], link: _Link) -> None:
        messages = aiter(call)
        while True:
            try:
                async with asyncio.timeout(SILENCE_SECONDS):
                    message = await anext(messages, None)
            except TimeoutError as error:
                raise ConnectionFailedError(
                    f"the verifier at {self._verifier} has been silent for {SILENCE_SECONDS:g} s"
                ) from error
            if message is None:
                return
            match message.WhichOneof("message"):
                case "welcome":
                    codec.check_version(message.welcome.protocol_version, who=f"the verifier at {self._verifier}")
                    self._failures = 0
                    self.attached = True
                    log.info("assisting %s at %s", message.welcome.model, self._verifier)
                    self._on_connected(message.welcome)
                case "drain":
                    self._pause = message.drain.reconnect_after_ms / 1000
                case _:
                    link.receive(message)


class _Link:
    """One connection's desk, worker and outbox."""

    def __init__(
        self,
        drafter: Drafter,
        outbox: asyncio.Queue[pb.AssistRequest],
        thread: ThreadPoolExecutor,
        seconds_per_token: float,
    ) -> None:
        self._drafter = drafter
        self._desk = Desk(drafter)
        self._waiting = WaitingOffers()
        self._learning: set[asyncio.Task[None]] = set()
        self._outbox = outbox
        self._thread = thread
        self._work = asyncio.Event()
        self.seconds_per_token = seconds_per_token

    @property
    def sessions(self) -> int:
        return len(self._desk) + len(self._waiting)

    def receive(self, message: pb.AssistResponse) -> None:
        match message.WhichOneof("message"):
            case "offer":
                try:
                    self._take(codec.offer_from_wire(message.offer))
                except DragomanError as error:
                    self._decline(message.offer.session, error)
                    return
            case "vocabulary":
                table = self._waiting.add(message.vocabulary)
                if table is not None:
                    task = asyncio.create_task(self._learn(message.vocabulary.vocab_hash, table))
                    self._learning.add(task)
                    task.add_done_callback(self._learning.discard)
                return
            case "verdict":
                session = self._desk.get(message.verdict.session)
                if session is not None:
                    self._send(session.name, session.on_verdict(self._verdict(message.verdict)))
            case "ping":
                pong = pb.Pong(number=message.ping.number, seconds_per_token=self.seconds_per_token)
                self._outbox.put_nowait(pb.AssistRequest(pong=pong))
                return
            case "closed":
                self._waiting.forget(message.closed.session)
                session = self._desk.close(message.closed.session)
                if session is not None:
                    self._thread.submit(session.close)
        self._work.set()

    def _verdict(self, message: pb.Verdict) -> Verdict:
        """A plan that is out of range is not followed; the text counts all the same."""
        try:
            return codec.verdict_from_wire(message)
        except InputError as error:
            log.warning("session %s keeps its plan: %s", message.session, error)
            message.ClearField("plan")
            return codec.verdict_from_wire(message)

    def _take(self, offer: SessionOffer) -> None:
        """Start on a session, or wait for the vocabulary that it needs."""
        self._waiting.forget(offer.session)
        missing = self._drafter.missing_vocabulary(offer) if isinstance(self._drafter, LearnsVocabularies) else ""
        if not missing:
            replaced = self._desk.open(offer)
        else:
            replaced = self._desk.close(offer.session)
            if self._waiting.hold(offer):
                request = pb.VocabularyRequest(vocab_hash=missing)
                self._outbox.put_nowait(pb.AssistRequest(vocabulary=request))
        if replaced is not None:
            self._thread.submit(replaced.close)

    async def _learn(self, vocab_hash: str, table: bytes) -> None:
        assert isinstance(self._drafter, LearnsVocabularies)
        loop = asyncio.get_running_loop()
        failure: DragomanError | None = None
        try:
            await loop.run_in_executor(self._thread, self._drafter.learn_vocabulary, vocab_hash, table)
        except DragomanError as error:
            failure = error
        for offer in self._waiting.release(vocab_hash):
            if failure is not None:
                self._decline(offer.session, failure)
            else:
                self._desk.open(offer)
        self._work.set()

    async def work(self) -> None:
        """Draft batch after batch, session after session, as far as their plans allow."""
        loop = asyncio.get_running_loop()
        while True:
            session = self._desk.next_turn()
            if session is None:
                self._work.clear()
                await self._work.wait()
                continue
            try:
                started, usual = time.perf_counter(), session.usual
                draft = await loop.run_in_executor(self._thread, session.prepare())
                if usual:
                    self.seconds_per_token += _SMOOTHING * (time.perf_counter() - started - self.seconds_per_token)
            except DragomanError as error:
                if self._desk.get(session.name) is session:
                    self._desk.close(session.name)
                    self._decline(session.name, error)
                await loop.run_in_executor(self._thread, session.close)
                continue
            if self._desk.get(session.name) is session:
                self._send(session.name, session.take(draft))

    async def close(self) -> None:
        """Free what the sessions hold, after the batch being drafted."""
        loop = asyncio.get_running_loop()
        for task in self._learning:
            task.cancel()
        while (session := self._desk.pop_any()) is not None:
            await loop.run_in_executor(self._thread, session.close)

    def _send(self, name: str, messages: list[Message]) -> None:
        for message in messages:
            if isinstance(message, Span):
                request = pb.AssistRequest(span=codec.span_to_wire(name, message))
            else:
                request = pb.AssistRequest(resync=pb.Resync(session=name, offset=message.offset))
            self._outbox.put_nowait(request)

    def _decline(self, name: str, error: DragomanError) -> None:
        log.warning("declining session %s: %s", name, error)
        self._outbox.put_nowait(pb.AssistRequest(decline=pb.Decline(session=name, reason=str(error))))


async def _drain(outbox: asyncio.Queue[pb.AssistRequest]) -> AsyncIterator[pb.AssistRequest]:
    while True:
        yield await outbox.get()
