"""Who may have texts written now, who waits, and who is turned away."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from speculation.errors import DrainingError, LimitExceededError
from speculation.plural import count_of


@dataclass(slots=True, eq=False)
class _Waiter:
    count: int
    granted: asyncio.Future[None]


class Places:
    """Of one request: ``count`` texts may be written at once."""

    def __init__(self, admission: Admission, count: int) -> None:
        self._admission = admission
        self.count = count

    def give_back(self, count: int = 1) -> None:
        """So many are not needed any more."""
        self.count -= count
        self._admission.release(count)


class Admission:
    """Places for texts, given in the order of the requests.

    A request gets all its places at once, so that its texts are written together. One that wants more than there are
    has all of them, and its texts take turns.
    """

    def __init__(self, *, max_concurrent: int, max_queue: int) -> None:
        self._most = self._free = max_concurrent
        self._max_queue = max_queue
        self._queue: deque[_Waiter] = deque()
        self._closed = False

    @property
    def running(self) -> int:
        """Places that are taken."""
        return self._most - self._free

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    def close(self) -> None:
        """From now on nobody is let in; who waits keeps waiting."""
        self._closed = True

    @contextlib.asynccontextmanager
    async def places(self, texts: int) -> AsyncIterator[Places]:
        """Places for so many texts, or for as many as there are.

        Raises LimitExceededError if the queue is full, DrainingError if it is closed. Who is cancelled leaves it.
        """
        count = min(texts, self._most)
        if self._closed:
            raise DrainingError("the gateway stops", remedy="ask another")
        if self._queue or self._free < count:
            await self._wait(count)
        else:
            self._free -= count
        places = Places(self, count)
        try:
            yield places
        finally:
            places.give_back(places.count)

    async def _wait(self, count: int) -> None:
        if len(self._queue) >= self._max_queue:
            written = count_of(self.running, "text is written", "texts are written")
            waiting = count_of(self.waiting, "request waits", "requests wait")
            raise LimitExceededError(f"{written}, and {waiting}")
        waiter = _Waiter(count, asyncio.get_running_loop().create_future())
        self._queue.append(waiter)
        try:
            await waiter.granted
        except asyncio.CancelledError:
            if waiter in self._queue:
                self._queue.remove(waiter)
                self.release(0)  # who was behind may fit where this one did not
            elif not waiter.granted.cancelled():
                self.release(count)
            raise

    def release(self, count: int) -> None:
        """So many places are free again; those in front of the queue get what they wait for."""
        self._free += count
        while self._queue and self._queue[0].count <= self._free:
            waiter = self._queue.popleft()
            self._free -= waiter.count
            if waiter.granted.cancelled():  # it leaves at this moment, and will not come for them
                self._free += waiter.count
            else:
                waiter.granted.set_result(None)
