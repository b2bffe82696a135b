"""What one identity may have at once, and how often it may come back: beside these, others find their place.

Where nobody is asked who he is there is nothing to tell callers apart by; then only what bounds a single stream holds,
and the server's own bounds.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from enum import StrEnum
from typing import Final

from speculation.errors import LimitExceededError
from speculation.plural import count_of
from transport.identity import Identity

#: Streams of one drafter's certificate or token, which several machines may share.
STREAMS_EACH: Final = 1024
#: Streams that it may open in a row, and a second from then on: one that lost its link dials again a few times.
ARRIVALS, ARRIVALS_PER_SECOND = 120, 2.0
#: Messages that one stream may bring a second, and how many more for each session that it drafts for. Each is read,
#: even if it is of no use. A drafter on an H200 sent 2,800 a second for 16 sessions; with more, unlikely drafts are not
#: sent.
MESSAGES_PER_SECOND, MESSAGES_PER_SESSION = 2_000.0, 175.0
#: Seconds for which that many may come all at once.
MESSAGES_SECONDS: Final = 2.0
#: Seconds for which an identity that sent more is given no new stream.
LOCKED_OUT_SECONDS: Final = 60.0
#: Identities that are remembered for how often they came.
REMEMBERED: Final = 10_000


class Quota(StrEnum):
    """What was exceeded, as metrics name it."""

    SESSIONS = "sessions_of_one_client"
    STREAMS = "streams_of_one_drafter"
    ARRIVALS = "arrivals_of_one_drafter"
    MESSAGES = "messages_of_one_drafter"
    LOCKED_OUT = "drafter_locked_out"
    MALFORMED = "malformed_messages_of_one_drafter"
    UNREAD = "waiting_messages_of_one_drafter"
    TOKENIZING = "waiting_questions_about_tokens"


class Buckets:
    """Of each holder: how many may come yet, ``most`` in a row and ``per_second`` from then on (token buckets)."""

    def __init__(self, most: float, per_second: float, clock: Callable[[], float]) -> None:
        self._most = float(most)
        self._per_second = per_second
        self._clock = clock
        self._left: dict[Hashable, tuple[float, float]] = {}  # and when that was so

    def take(self, holder: Hashable, count: float = 1) -> bool:
        """Whether so many more may come; if not, they are not counted."""
        now = self._clock()
        left, then = self._left.pop(holder, (self._most, now))
        left = min(self._most, left + (now - then) * self._per_second)
        may = left >= count
        self._left[holder] = (left - count if may else left, now)
        if len(self._left) > REMEMBERED:  # the one that came longest ago
            del self._left[next(iter(self._left))]
        return may


class Quotas:
    """``sessions_each``: texts of one client at once; None: as many as there may be in all. ``refused``: told of every
    refusal. ``clock``: steady seconds; None: the system's.
    """

    def __init__(
        self,
        sessions_each: int | None = None,
        *,
        refused: Callable[[Quota], None] = lambda quota: None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        clock = clock or time.monotonic
        self._sessions_each = sessions_each
        self._refused = refused
        self._sessions: Counter[Identity] = Counter()
        self._streams: Counter[Identity] = Counter()
        self._arrivals = Buckets(ARRIVALS, ARRIVALS_PER_SECOND, clock)
        self._messages = Buckets(MESSAGES_SECONDS, 1.0, clock)  # of seconds: how many come in one depends on sessions
        self._clock = clock
        self._locked_out: dict[Identity, float] = {}  # until when

    @contextlib.contextmanager
    def session(self, who: Identity | None) -> Iterator[None]:
        """One of a client's. Raises LimitExceededError if it has as many as it may."""
        if who is not None and self._sessions_each is not None and self._sessions[who] >= self._sessions_each:
            has = count_of(self._sessions[who], "text")
            problem = f"{who} has {has} written at once, the most that one client may have here"
            raise self._exceeded(Quota.SESSIONS, problem, remedy="wait for one of them to end")
        with _counted(self._sessions, who):
            yield

    @contextlib.contextmanager
    def stream(self, who: Identity | None) -> Iterator[None]:
        """One of a drafter's. Raises LimitExceededError if it has as many as it may, or comes too often."""
        if who is not None:
            if self._streams[who] >= STREAMS_EACH:
                problem = f"{who} has {STREAMS_EACH} streams, the most that one drafter may have here"
                raise self._exceeded(Quota.STREAMS, problem, remedy="give further drafters certificates of their own")
            if self._clock() < self._locked_out.get(who, 0.0):
                problem = f"{who} sent too many messages"
                raise self._exceeded(Quota.LOCKED_OUT, problem, remedy=f"wait {LOCKED_OUT_SECONDS:g} seconds")
            if not self._arrivals.take(who):
                problem = f"{who} dials again and again"
                raise self._exceeded(Quota.ARRIVALS, problem, remedy="wait some seconds between two attempts")
        with _counted(self._streams, who):
            yield

    def messages(self, who: Identity | None, stream: int, count: int, *, sessions: int) -> None:
        """So many more came on a stream, told by its number, that drafts for ``sessions`` now.

        Raises LimitExceededError if these are more than it may bring; then ``who`` gets no other for a while.
        """
        rate = MESSAGES_PER_SECOND + sessions * MESSAGES_PER_SESSION
        if not self._messages.take(stream, count / rate):
            if who is not None:
                self._lock_out(who)
            problem = f"more than {rate:,.0f} messages a second, the most for {count_of(sessions, 'session')}"
            raise self._exceeded(Quota.MESSAGES, problem, remedy="send longer spans, or fewer alternatives")

    def _lock_out(self, who: Identity) -> None:
        now = self._clock()
        self._locked_out = {other: until for other, until in self._locked_out.items() if until > now}
        self._locked_out[who] = now + LOCKED_OUT_SECONDS

    def _exceeded(self, quota: Quota, problem: str, *, remedy: str) -> LimitExceededError:
        self._refused(quota)
        return LimitExceededError(problem, remedy=remedy)


@contextlib.contextmanager
def _counted(counts: Counter[Identity], who: Identity | None) -> Iterator[None]:
    if who is None:
        yield
        return
    counts[who] += 1
    try:
        yield
    finally:
        counts[who] -= 1
        if not counts[who]:
            del counts[who]
