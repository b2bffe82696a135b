"""A drafter that dialled in, as the verifier sees it: who it is, what waits to be sent to it, what it sent."""

from __future__ import annotations

import itertools
import time
from collections import deque
from dataclasses import dataclass, field

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import ProtocolError
from speculation.planning.fits import LONGEST_SECONDS, Smoothed
from speculation.protocol.status import DrafterStatus
from speculation.source import Source, SourceKind
from verifier_service.outbox import Outbox
from verifier_service.work_budget import WorkBudget

_numbers = itertools.count(1)


@dataclass(slots=True, eq=False)
class DrafterLink:
    """One open ``Assist`` stream. Names need not be unique; links are told apart by identity."""

    #: Pings without an answer that are remembered.
    PINGS_OUT = 64
    #: Sessions that it took part in and no longer does: spans for them may still be on their way.
    FORMER_SESSIONS = 256

    hello: pb.Hello
    trusted: bool = True
    number: int = field(default_factory=lambda: next(_numbers))
    sessions: set[str] = field(default_factory=set)
    former: deque[str] = field(default_factory=lambda: deque(maxlen=DrafterLink.FORMER_SESSIONS))
    spans: int = 0
    stale_spans: int = 0
    #: What was not taken: malformed messages, and those that there was no room for.
    rejected_messages: int = 0
    malformed_messages: int = 0
    #: Its draft tokens that were verified, and those of them that were accepted, in all sessions.
    draft_tokens: int = 0
    accepted_tokens: int = 0
    #: As whom sessions know it.
    source: Source = field(default_factory=lambda: Source(SourceKind.DRAFTER))
    has_vocabulary: bool = False  # it was sent the target's, or will be
    round_trip: Smoothed = field(default_factory=Smoothed)
    _draft_token: Smoothed = field(default_factory=Smoothed)
    _pings: dict[int, float] = field(default_factory=dict)
    outbox: Outbox = field(default_factory=Outbox)
    work: WorkBudget = field(default_factory=WorkBudget)

    @property
    def has_room(self) -> bool:
        """Whether it takes one more session: it has not as many as it wants, and keeps up with what it is sent."""
        return len(self.sessions) < self.hello.max_sessions and not self.outbox.full

    @property
    def may_work(self) -> bool:
        """Whether there is time for what it sent."""
        return self.work.has_left(len(self.sessions))

    def ping(self) -> None:
        """Ask for a sign of life, and note when."""
        number = next(_numbers)
        if len(self._pings) >= self.PINGS_OUT:
            self._pings.pop(next(iter(self._pings)))
        self._pings[number] = time.monotonic()
        self.outbox.send(pb.AssistResponse(ping=pb.Ping(number=number)))

    def on_pong(self, pong: pb.Pong) -> float:
        """Measure the link; returns this round trip in seconds.

        Raises ProtocolError for an answer to nothing, or a speed that cannot be.
        """
        asked = self._pings.pop(pong.number, None)
        if asked is None:
            raise ProtocolError(f"a pong to no ping, {pong.number}")
        round_trip = time.monotonic() - asked
        self.round_trip.observe_value(round_trip)
        if not 0 <= pong.seconds_per_token <= LONGEST_SECONDS:  # nor NaN
            raise ProtocolError(f"seconds_per_token={pong.seconds_per_token} in a pong")
        if pong.seconds_per_token:
            self._draft_token.observe_value(pong.seconds_per_token)
        return round_trip

    @property
    def seconds_per_token_alone(self) -> float | None:
        """What a session would wait for a draft token if it were the only one."""
        return self._draft_token.mean

    @property
    def seconds_per_token(self) -> float | None:
        """What one of its sessions waits for a draft token, the turns of the others included."""
        seconds = self._draft_token.mean
        return None if seconds is None else seconds * max(1, len(self.sessions))

    def seconds_to_first_span(self) -> float:
        """From a verdict to a short span that follows it. Measured links only."""
        return (self.round_trip.mean or 0.0) + 4 * (self.seconds_per_token or 0.0)

    def status(self) -> DrafterStatus:
        """For whoever asks how the verifier stands."""
        return DrafterStatus(
            name=self.hello.name,
            model=self.hello.model,
            vocab_size=self.hello.vocab_size,
            vocab_hash=self.hello.vocab_hash,
            sessions=len(self.sessions),
            spans=self.spans,
            stale_spans=self.stale_spans,
            rejected_messages=self.rejected_messages,
            round_trip=self.round_trip.mean or 0.0,
            seconds_per_token=self._draft_token.mean or 0.0,
            draft_tokens=self.draft_tokens,
            accepted_tokens=self.accepted_tokens,
        )
