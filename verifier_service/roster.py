"""The drafters that dialled in, and which of them draft for which session.

By itself the verifier offers every session to every drafter with room. A coordinator's order says who drafts for a
session, and stands for a while.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import DragomanError, LimitExceededError, ProtocolError
from speculation.protocol.messages import Resync, SessionOffer, Verdict
from transport import codec
from transport.bundles import unbundled
from transport.identity import Identity
from transport.limits import PROTOCOL_VERSION, WireLimits
from verifier_service.drafter_link import DrafterLink
from verifier_service.drafter_trust import DrafterTrust
from verifier_service.engine import Engine
from verifier_service.metrics import VerifierMetrics
from verifier_service.open_session import OpenSession
from verifier_service.quotas import Quota
from verifier_service.session_planner import ORDER_SECONDS
from verifier_service.step_report import Addressed, Message
from verifier_service.vocabulary_sender import VocabularySender

log = logging.getLogger(__name__)

#: Between two pings of a link that has sessions, and of one that has none.
PING_SECONDS, IDLE_PING_SECONDS = 0.25, 1.0


class Roster:
    """All drafters that are connected, and who of them drafts for which session.

    ``sessions``: those that are open, by name; the verifier keeps the mapping up to date.
    """

    #: Closed sessions remembered, so that a span that crossed the end of its session is not held against anyone.
    REMEMBERED_SESSIONS = 1024

    def __init__(
        self,
        engine: Engine,
        limits: WireLimits,
        sessions: Mapping[str, OpenSession],
        metrics: VerifierMetrics,
        trust: DrafterTrust,
    ) -> None:
        self.links: list[DrafterLink] = []
        self._engine = engine
        self._limits = limits
        self._sessions = sessions
        self._metrics = metrics
        self._trust = trust
        self._known: deque[str] = deque(maxlen=self.REMEMBERED_SESSIONS)  # instances that dialled in
        self._vocabulary = VocabularySender(engine.tokenizer.vocab)
        self._closed: deque[str] = deque(maxlen=self.REMEMBERED_SESSIONS)
        metrics.drafters(0)

    def attach(self, hello: pb.Hello, identity: Identity | None = None) -> DrafterLink:
        """A drafter dialled in. ``identity``: None where nobody is asked who he is. Raises VersionMismatchError or
        InputError for one that cannot be worked with."""
        codec.check_hello(hello)
        link = DrafterLink(hello, trusted=self._trust.trusts(identity))
        tokenizer = self._engine.tokenizer
        welcome = pb.Welcome(
            protocol_version=PROTOCOL_VERSION,
            model=self._engine.name,
            vocab_size=self._engine.vocab_size,
            vocab_hash=tokenizer.vocab.content_hash,
            limits=codec.limits_to_wire(self._limits),
            takes_several=True,
        )
        link.outbox.send(pb.AssistResponse(welcome=welcome))
        self.links.append(link)
        self._metrics.drafters(len(self.links))
        self._metrics.drafted(link.source.kind, hello.name, 0, 0)
        if hello.instance in self._known:
            self._metrics.reconnects(1)
        elif hello.instance:
            self._known.append(hello.instance)
        self._find_sessions(link)
        log.info("drafter %s (%s) joined", hello.name, hello.model)
        return link

    def detach(self, link: DrafterLink) -> None:
        """The drafter's stream ended. Its spans stay in the pools: they are as good as before."""
        self.links.remove(link)
        self._metrics.drafters(len(self.links))
        for name in tuple(link.sessions):
            self._sessions[name].leave(link)
        log.info("drafter %s left", link.hello.name)

    async def keep_measuring(self, link: DrafterLink) -> None:
        """Ping the drafter: to know how far away it is, and to let it know that the link is alive.

        One that did not keep up is given sessions again when it does.
        """
        while True:
            link.ping()
            self._find_sessions(link)
            await asyncio.sleep(PING_SECONDS if link.sessions else IDLE_PING_SECONDS)

    def receive(self, link: DrafterLink, message: pb.AssistRequest) -> None:
        """Route a drafter's message. A malformed one is refused and counted, the session goes on.

        Raises LimitExceededError when the drafter has sent more malformed messages than it may.
        """
        try:
            messages = unbundled(message)
        except ProtocolError as error:
            self._refuse(link, message, error)
            return
        for each in messages:
            try:
                self._route(link, each)
            except DragomanError as error:
                self._refuse(link, each, error)

    def _refuse(self, link: DrafterLink, message: pb.AssistRequest, error: DragomanError) -> None:
        link.rejected_messages += 1
        link.malformed_messages += 1  # no flood counts here: an honest drafter may be faster than a session's steps
        opened = self._sessions.get(_session_of(message))
        (log if opened is None else opened.log).warning("drafter %s: refused %s", link.hello.name, error)
        if link.malformed_messages > self._limits.malformed_messages:
            self._metrics.refused_by(Quota.MALFORMED)
            raise LimitExceededError(
                f"drafter {link.hello.name!r} sent {link.malformed_messages} malformed messages; the last: {error}"
            ) from error

    def _route(self, link: DrafterLink, message: pb.AssistRequest) -> None:
        match message.WhichOneof("message"):
            case "span":
                link.spans += 1
                opened = self._offered(link, message.span.session)
                if opened is not None and not self._refuses(opened, link):
                    opened.figures.bytes_up += message.ByteSize()
                    if not opened.session.request.rule.proposes:
                        message.span.ClearField("drawn")  # nobody asked for it, and it takes long to read
                    committed = opened.session.committed_length
                    size = self._engine.vocab_size
                    span = codec.span_from_wire(
                        message.span, self._limits, committed=committed, vocab_size=size, source=link.source
                    )
                    self._answer(opened, opened.put(link, span))
            case "resync":
                opened = self._offered(link, message.resync.session)
                if opened is not None and not self._refuses(opened, link):
                    opened.figures.bytes_up += message.ByteSize()
                    self._answer(opened, opened.put(link, Resync(message.resync.offset)))
            case "decline":
                opened = self._offered(link, message.decline.session)
                if opened is not None:
                    opened.log.info("drafter %s declines: %s", link.hello.name, message.decline.reason)
                    opened.leave(link, declined=True)
            case "pong":
                self._metrics.round_trip(link.on_pong(message.pong))
            case "vocabulary":
                self._vocabulary.ask(link, message.vocabulary.vocab_hash)
            case "hello":
                raise ProtocolError("a second hello on one stream")
            case _:
                raise ProtocolError("an empty or unknown message")

    def _refuses(self, opened: OpenSession, link: DrafterLink) -> bool:
        """Whether more waits of what the drafter sent for the session than it may send: it is not even read."""
        if not opened.refuses(link):
            return False
        self._metrics.refused_by(Quota.UNREAD)
        return True

    def _offered(self, link: DrafterLink, name: str) -> OpenSession | None:
        """The session if the drafter takes part in it, None if it is over, else ProtocolError."""
        if name in link.sessions:
            return self._sessions[name]
        if name in self._closed or name in link.former:
            return None
        raise ProtocolError(f"session {name[:40]!r} is unknown or was not offered to this drafter")

    def find_drafters(self, opened: OpenSession) -> None:
        """Offer the session to every drafter with room, unless the coordinator has said who drafts for it."""
        for link in self.links:
            self._consider(opened, link)

    def _find_sessions(self, link: DrafterLink) -> None:
        for opened in self._sessions.values():
            self._consider(opened, link)

    def _consider(self, opened: OpenSession, link: DrafterLink) -> None:
        if not opened.drafters.is_placed(time.monotonic()):
            self._join(opened, link)

    def _join(self, opened: OpenSession, link: DrafterLink) -> None:
        if not opened.drafters.takes(link):
            return
        rule = opened.session.request.rule
        if self._trust.allows(rule, trusted=link.trusted):
            self._answer(opened, opened.join(link))
            opened.log.debug("offered to drafter %s", link.hello.name)
        else:  # as if it had declined, so that a coordinator places another
            opened.drafters.exclude(link)
            opened.log.info("not offered to drafter %s, which is not trusted (rule %s)", link.hello.name, rule)

    def send(self, opened: OpenSession, messages: Sequence[Addressed]) -> None:
        """What there is for the session's drafters."""
        for addressee, content in messages:
            links = [link for link in opened.drafters if addressee is None or link is addressee]
            if links:
                message = _to_wire(opened.name, content)
                opened.figures.bytes_down += message.ByteSize() * len(links)
                for link in links:
                    link.outbox.send(message)

    def _answer(self, opened: OpenSession, messages: Sequence[Addressed]) -> None:
        """What cannot be told fails the session, not the drafter that it is for."""
        try:
            self.send(opened, messages)
        except Exception as error:
            opened.fail(error)

    async def drain(self, reconnect_after_ms: int) -> None:
        """Tell the drafters to dial again later, and end their streams."""
        for link in self.links:
            link.outbox.send(pb.AssistResponse(drain=pb.Drain(reconnect_after_ms=reconnect_after_ms)))
            link.outbox.end()

    def place(self, session: str, numbers: frozenset[int]) -> None:
        """From now on these links draft for the session; the order stands for a while, then the verifier places."""
        opened = self._sessions.get(session)
        if opened is None or not opened.drafters.open:
            return
        opened.drafters.place(time.monotonic() + ORDER_SECONDS)
        for link in opened.drafters:
            if link.number not in numbers:
                opened.leave(link)
                link.outbox.send(pb.AssistResponse(closed=pb.SessionClosed(session=session, reason="placed elsewhere")))
        for link in self.links:
            if link.number in numbers:
                self._join(opened, link)

    def release(self, opened: OpenSession) -> None:
        """The session ended: its drafters are told, and their places are free for those that had to do without."""
        opened.drafters.close()  # another session's end must not bring it new drafters
        closed = pb.AssistResponse(closed=pb.SessionClosed(session=opened.name))
        for link in opened.drafters:
            opened.leave(link)
            link.outbox.send(closed)
        self._closed.append(opened.name)
        for other in self._sessions.values():
            self.find_drafters(other)


def _to_wire(session: str, content: Message) -> pb.AssistResponse:
    match content:
        case Verdict():
            return pb.AssistResponse(verdict=codec.verdict_to_wire(session, content))
        case SessionOffer():
            return pb.AssistResponse(offer=codec.offer_to_wire(content))


def _session_of(message: pb.AssistRequest) -> str:
    """The session that a drafter's message is about, or says it is; empty for one about none."""
    kind = message.WhichOneof("message")
    return getattr(getattr(message, kind), "session", "") if kind is not None else ""
