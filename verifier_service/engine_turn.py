"""Whose turn it is to touch sessions that are stepped: the engine's thread's, but not while it waits for the device.

Then the event loop takes in what drafters send, so that a step does not begin with it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from types import TracebackType


class EngineTurn:
    """The engine's thread works inside ``with turn``, the event loop asks for the ``gap`` whenever it likes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: Whether the engine's thread waits for a gap to end. There is no other until it had its turn: a lock is given
        #: to whoever comes by first, and that would be the thread that has just released it.
        self.wanted = False

    def __enter__(self) -> None:
        self._acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    @contextlib.contextmanager
    def device_works(self) -> Iterator[None]:
        """In the engine's thread, inside its turn: it touches no session while the block runs."""
        self._lock.release()
        try:
            yield
        finally:
            self._acquire()

    def _acquire(self) -> None:
        self.wanted = True
        self._lock.acquire()
        self.wanted = False

    @contextlib.contextmanager
    def gap(self) -> Iterator[bool]:
        """In the event loop, without waiting: whether sessions may be touched in the block."""
        free = not self.wanted and self._lock.acquire(blocking=False)
        try:
            yield free
        finally:
            if free:
                self._lock.release()
