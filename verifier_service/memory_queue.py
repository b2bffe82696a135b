"""Who has KV memory, in the order in which the sessions came.

A session begins when there is memory for its prompt and some growth, so most end without ever being short of it. One
that grows on takes what is free; if nothing is, the youngest of all gives its memory up, and later begins again: its
prompt and text are run anew, in passes that give them the same bits. The oldest never has to, so somebody always ends.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from speculation.errors import LimitExceededError
from verifier_service.engine import Engine
from verifier_service.open_session import OpenSession

#: Tokens that a session may grow by before it takes what is free, page by page.
GROWTH = 512


class MemoryQueue:
    """``enter``, ``leave`` and ``next_prompt`` run in the event loop, ``make_room`` in the engine's thread."""

    def __init__(self, engine: Engine) -> None:
        self.growth = GROWTH
        self._engine = engine
        self._arrivals = itertools.count()
        self._arrived: dict[OpenSession, int] = {}

    def enter(self, opened: OpenSession) -> None:
        """A session comes, or begins again; then it keeps its place."""
        if opened not in self._arrived:
            self._arrived[opened] = next(self._arrivals)

    def leave(self, opened: OpenSession) -> None:
        """A session has ended."""
        self._arrived.pop(opened, None)

    def next_prompt(self, waiting: Iterable[OpenSession]) -> OpenSession | None:
        """Whose prompt is to be run: the first that has memory, or the oldest if it can have it now.

        Who waits for memory is not overtaken by who needs less.
        """
        oldest = None
        for opened in waiting:
            if opened.begun:
                return opened
            if oldest is None or self._arrived[opened] < self._arrived[oldest]:
                oldest = opened
        return oldest if oldest is not None and self._engine.has_room(oldest.positions_ahead(self.growth)) else None

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
                arrived = dict(self._arrived)  # the event loop goes on with its own
                holders = [each for each in arrived if each.begun]
                if holders == [opened]:
                    raise
                youngest = max(holders, key=arrived.__getitem__)
                youngest.preempt()
                gave_up.append(youngest)
        return gave_up
