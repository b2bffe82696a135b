"""Who has KV memory, in the order in which the sessions came, and of their priorities.

A session begins when there is memory for its prompt and some growth, so most end without ever being short of it. One
that grows on takes what is free; if nothing is, the youngest of all gives its memory up, and later begins again: its
prompt and text are run anew, in passes that give them the same bits. The oldest never has to, so somebody always ends.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence

from speculation.errors import LimitExceededError
from verifier_service.engine import Engine
from verifier_service.open_session import OpenSession

#: Tokens that a session may grow by before it takes what is free, page by page.
GROWTH = 512
#: Seconds of waiting that one step of priority is worth.
PRIORITY_SECONDS = 10.0


class MemoryQueue:
    """``make_room`` runs in the engine's thread, while the event loop may ``enter`` and ``leave``.

    ``clock``: steady seconds.
    """

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self.growth = GROWTH
        self._engine = engine
        self._clock = clock
        self._arrivals = itertools.count()
        self._places: dict[OpenSession, tuple[float, int]] = {}  # the first in order is the *oldest*

    def enter(self, opened: OpenSession) -> None:
        """A session comes, or begins again; then it keeps its place."""
        if opened not in self._places:
            came = self._clock() + PRIORITY_SECONDS * opened.priority
            self._places[opened] = came, next(self._arrivals)

    def leave(self, opened: OpenSession) -> None:
        """A session has ended."""
        self._places.pop(opened, None)

    def prompts(self, waiting: Sequence[OpenSession]) -> list[OpenSession]:
        """Whose prompts are to be run, if only the first of them can be: those that have memory, then by age.

        Who waits for memory is not overtaken by who needs less. Nobody: the oldest cannot have it yet.
        """
        begun = [opened for opened in waiting if opened.begun]
        others = sorted((opened for opened in waiting if not opened.begun), key=self._places.__getitem__)
        return [*begun, *others] if begun or (others and self.has_room(others[0])) else []

    def has_room(self, opened: OpenSession) -> bool:
        """Whether the session could begin now."""
        return self._engine.has_room(opened.positions_ahead(self.growth))

    def make_room(self, opened: OpenSession, rows: int) -> list[OpenSession]:
        """Memory for so many rows of the session's coming step. Returns who gave up theirs for it, perhaps itself.

        Raises LimitExceededError if nobody else has any.
        """
        gave_up: list[OpenSession] = []
        while opened not in gave_up:
            try:
                opened.slot.hold(rows)
                break
            except LimitExceededError:
                places = dict(self._places)  # the event loop goes on with its own
                holders = [each for each in places if each.begun]
                if holders == [opened]:
                    raise
                youngest = max(holders, key=places.__getitem__)
                youngest.preempt()
                gave_up.append(youngest)
        return gave_up
