"""What drafters sent a session since its last step.

Every drafter has a budget of its own until the next step, because a step would wait for the merging of all of it into
the pool: a flood drowns nobody but its sender.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from speculation.drafts.draft_pool import DraftPool
from speculation.protocol.messages import Resync, Span
from verifier_service.drafter_link import DrafterLink


@dataclass(frozen=True, slots=True)
class Join:
    """A drafter is to be offered the session as it stands."""


Event = Span | Resync | Join


class Inbox:
    """``put`` in the event loop; ``take`` and ``renew`` in whichever thread may touch the session (``engine_turn.py``),
    never both at once."""

    #: Messages and bytes that one drafter may send for one step; a message counts as some bytes more.
    MESSAGES, BYTES, MESSAGE_COST = 1024, 32 << 10, 32
    #: And tokens in all distributions: as many as the pool holds.
    PAIRS = DraftPool.MAX_PAIRS
    #: That are taken in while the device works, at most, before the engine's thread may go on.
    AT_ONCE = 8

    def __init__(self) -> None:
        self._events: deque[tuple[DrafterLink, Event]] = deque()  # whose append and popleft are atomic
        self._spent: dict[DrafterLink, tuple[int, int, int]] = {}
        self._overdrawn: set[DrafterLink] = set()

    def refuses(self, link: DrafterLink) -> bool:
        """Whether the drafter went beyond its budget before: what it sends need not be read. Counted against it."""
        if link not in self._overdrawn:
            return False
        link.rejected_messages += 1
        return True

    def put(self, link: DrafterLink, event: Event, *, asks_for: int = 0) -> None:
        """Refused, and counted against the drafter, beyond its budget. ``asks_for``: bytes that answering takes."""
        if not isinstance(event, Join):  # which is our own doing
            messages, size, pairs = self._spent.get(link, (0, 0, 0))
            size += self.MESSAGE_COST + (len(event.text) if isinstance(event, Span) else asks_for)
            if isinstance(event, Span):
                pairs += sum(len(proposal.ids) for proposal in event.proposals)
            if messages >= self.MESSAGES or size > self.BYTES or pairs > self.PAIRS:
                link.rejected_messages += 1
                self._overdrawn.add(link)
                return
            self._spent[link] = messages + 1, size, pairs
        self._events.append((link, event))

    def take(self, most: int | None = None) -> Iterator[tuple[DrafterLink, Event]]:
        """What came, in its order; ``most`` of it, or all."""
        for _ in itertools.count() if most is None else range(most):
            if not self._events:
                return
            yield self._events.popleft()

    def renew(self) -> None:
        """A step begins: budgets are full again."""
        self._spent, self._overdrawn = {}, set()
