"""What drafters sent a session since its last step.

Every drafter has budgets of its own, because a step would wait for the merging of all of it into the pool: one of
messages and bytes that may wait for the coming step, and one of the time that taking them in may need. What that has no
time for waits, and counts against what the drafter may send next. So a flood drowns nobody but its sender.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field

from speculation.drafts.draft_pool import DraftPool
from speculation.protocol.messages import Resync, Span
from verifier_service.drafter_link import DrafterLink


@dataclass(frozen=True, slots=True)
class Join:
    """A drafter is to be offered the session as it stands."""


Event = Span | Resync | Join


@dataclass(slots=True)
class _Mail:
    """Of one drafter. ``messages``, ``size`` and ``pairs``: what it sent for the coming step."""

    events: deque[Event] = field(default_factory=deque)  # whose append and popleft are atomic
    messages: int = 0
    size: int = 0
    pairs: int = 0
    overdrawn: bool = False

    def renew(self) -> None:
        """Budgets are full again, once nothing waits."""
        if not self.events:
            self.messages = self.size = self.pairs = 0
            self.overdrawn = False


class Inbox:
    """``put`` in the event loop; ``take`` and ``renew`` in whichever thread may touch the session (``engine_turn.py``),
    never both at once."""

    #: Messages and bytes that one drafter may send for one step; a message counts as some bytes more.
    MESSAGES, BYTES, MESSAGE_COST = 1024, 32 << 10, 32
    #: And tokens in all distributions: as many as the pool holds.
    PAIRS = DraftPool.MAX_PAIRS
    #: That are taken in while the device works, at most, before the engine's thread may go on.
    AT_ONCE = 8
    #: Seconds after which there may be time for what waits.
    PAUSE = 0.005

    def __init__(self) -> None:
        self._mail: dict[DrafterLink, _Mail] = {}
        self._left: set[DrafterLink] = set()  # of them: those that take part no more
        self._woken = asyncio.Event()

    async def arrival(self) -> None:
        """In the event loop: of anything, or of the time for what waits."""
        waits = any(mail.events for mail in tuple(self._mail.values()))
        self._woken.clear()
        with contextlib.suppress(TimeoutError):
            # Not wait_for, which before Python 3.12 may swallow a cancel that comes with the event.
            async with asyncio.timeout(self.PAUSE if waits else None):
                await self._woken.wait()

    def wake(self) -> None:
        """Whoever waits for an arrival."""
        self._woken.set()

    def refuses(self, link: DrafterLink) -> bool:
        """Whether the drafter went beyond its budget before: what it sends need not be read. Counted against it."""
        mail = self._mail.get(link)
        if mail is None or not mail.overdrawn:
            return False
        link.rejected_messages += 1
        return True

    def put(self, link: DrafterLink, event: Event, *, asks_for: int = 0) -> None:
        """Refused, and counted against the drafter, beyond its budget. ``asks_for``: bytes that answering takes."""
        self.wake()
        self._left.discard(link)
        self._forget()
        mail = self._mail.setdefault(link, _Mail())
        if not isinstance(event, Join):  # which is our own doing
            size = mail.size + self.MESSAGE_COST + (len(event.text) if isinstance(event, Span) else asks_for)
            pairs = mail.pairs
            if isinstance(event, Span):
                pairs += sum(len(proposal.ids) for proposal in event.proposals)
            if mail.messages >= self.MESSAGES or size > self.BYTES or pairs > self.PAIRS:
                link.rejected_messages += 1
                mail.overdrawn = True
                return
            mail.messages, mail.size, mail.pairs = mail.messages + 1, size, pairs
        mail.events.append(event)

    def leave(self, link: DrafterLink) -> None:
        """In the event loop: the drafter takes part no more; what it sent before is still taken in."""
        if link in self._mail:
            self._left.add(link)
        self._forget()
        self.wake()

    def _forget(self) -> None:
        # Here, in the event loop, and not where the last of it is taken: nobody puts anything in meanwhile.
        for link in [link for link in self._left if not self._mail[link].events]:
            self._left.discard(link)
            del self._mail[link]

    @property
    def drafters(self) -> int:
        """Whose mail is held."""
        return len(self._mail)

    def take(self, most: int | None = None) -> Generator[tuple[DrafterLink, Event]]:
        """What came, of each drafter in its order, of all in turns; ``most`` of it, or all that there is time for.

        The time from one to the next is their senders'.
        """
        taken = -1
        while taken:
            taken = 0
            for link, mail in tuple(self._mail.items()):
                if not mail.events or not (isinstance(mail.events[0], Join) or link.may_work):
                    continue
                if most is not None:
                    if not most:
                        return
                    most -= 1
                taken += 1
                with link.work.spending():
                    yield link, mail.events.popleft()

    def renew(self) -> None:
        """A step begins: budgets are full again, but of those who have more waiting than there was time for."""
        for mail in tuple(self._mail.values()):
            mail.renew()
