"""What a drafter does with one connection to a verifier: sessions opened, drafted for in turn, closed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from drafter_service.desk import Desk, DeskSession, Message, carry_out
from drafter_service.draft_source import Drafter, DraftsTogether, LearnsVocabularies
from drafter_service.waiting_offers import WaitingOffers
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import DragomanError, InputError
from speculation.protocol.messages import SessionOffer, Span, Verdict
from transport import codec
from transport.session_log import SessionLog

log = logging.getLogger(__name__)

#: Of the running figure of seconds per drafted token.
_SMOOTHING = 0.1


class VerifierLink:
    """One connection's desk, worker and outbox: what comes goes to ``receive``, ``work`` drafts until cancelled."""

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
                table = self._waiting.add_chunk(message.vocabulary)
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
            SessionLog(log, message.session).warning("keeps its plan: %s", error)
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
        most = self._drafter.sessions_together if isinstance(self._drafter, DraftsTogether) else 1
        while True:
            sessions = self._desk.next_turns(most)
            if sessions:
                await self._draft(sessions)
            else:
                self._work.clear()
                await self._work.wait()

    async def _draft(self, sessions: Sequence[DeskSession]) -> None:
        """A batch of each of them."""
        started, are_typical = time.perf_counter(), all(session.is_typical_batch for session in sessions)
        jobs = [session.prepare() for session in sessions]
        drafts = await asyncio.get_running_loop().run_in_executor(self._thread, carry_out, self._drafter, jobs)
        if are_typical:
            share = (time.perf_counter() - started) / len(sessions)
            self.seconds_per_token += _SMOOTHING * (share - self.seconds_per_token)
        for session, draft in zip(sessions, drafts, strict=True):
            is_on_desk = self._desk.get(session.name) is session
            if not isinstance(draft, DragomanError):
                if is_on_desk:
                    self._send(session.name, session.take(draft))
                continue
            if is_on_desk:
                self._desk.close(session.name)
                session.trace.declined(draft)
                self._decline(session.name, draft)
            self._thread.submit(session.close)

    async def close(self) -> None:
        """Free what the sessions hold, after the batch being drafted."""
        loop = asyncio.get_running_loop()
        for task in self._learning:
            task.cancel()
        while (session := self._desk.pop_any()) is not None:
            await loop.run_in_executor(self._thread, session.close)
        # Those that ended before are closed by the same thread: nothing of theirs, like a span, is left half done.
        await loop.run_in_executor(self._thread, _nothing)

    def _send(self, name: str, messages: list[Message]) -> None:
        for message in messages:
            if isinstance(message, Span):
                request = pb.AssistRequest(span=codec.span_to_wire(name, message))
            else:
                request = pb.AssistRequest(resync=pb.Resync(session=name, offset=message.offset))
            self._outbox.put_nowait(request)

    def _decline(self, name: str, error: DragomanError) -> None:
        SessionLog(log, name).warning("declined: %s", error)
        self._outbox.put_nowait(pb.AssistRequest(decline=pb.Decline(session=name, reason=str(error))))


def _nothing() -> None:
    """Done once all is done that was asked for before."""
