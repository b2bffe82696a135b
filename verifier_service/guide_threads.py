"""Threads in which guides are compiled: deep stacks, never waited for, and a bound on what waits for them."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, Generic, TypeVar

from speculation.errors import LimitExceededError
from speculation.plural import count_of

#: Compilers recurse along a grammar's rules, and what exceeds the stack ends the process.
_STACK: Final = 256 << 20
_THREADS: Final = 2
_T = TypeVar("_T")


class GuideThreads(Generic[_T]):
    """Unlike those of a pool, no thread keeps the process from ending: what compiles cannot be interrupted.

    ``waiting``: the most that run or wait. ``seconds``: for each, waiting included.
    """

    def __init__(self, *, waiting: int, seconds: float) -> None:
        self._most, self._seconds = waiting, seconds
        self._jobs: queue.SimpleQueue[tuple[Future[_T], Callable[[], _T]] | None] = queue.SimpleQueue()
        self._pending: set[Future[_T]] = set()
        self._started = False

    async def run(self, work: Callable[[], _T]) -> _T:
        """Raises LimitExceededError if too many wait, or if its turn did not come; TimeoutError if it came, and it
        takes too long. Who leaves takes what has not begun with him."""
        if len(self._pending) >= self._most:
            pending = count_of(len(self._pending), "guide is", "guides are")
            raise LimitExceededError(f"{pending} being compiled", remedy="try again later")
        self._start()
        future: Future[_T] = Future()
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        self._jobs.put((future, work))
        try:
            async with asyncio.timeout(self._seconds):  # not wait_for, which loses a cancel before Python 3.12
                return await asyncio.wrap_future(future)
        except TimeoutError:
            if future.cancelled():
                raise LimitExceededError("other guides are being compiled", remedy="try again later") from None
            raise

    def close(self) -> None:
        """What waits is dropped; what runs is left alone."""
        for future in tuple(self._pending):
            future.cancel()
        for _ in range(_THREADS):
            self._jobs.put(None)

    def _start(self) -> None:
        if self._started:
            return
        self._started = True
        before = threading.stack_size(_STACK)
        try:
            for number in range(_THREADS):
                threading.Thread(target=self._work, name=f"guides-{number}", daemon=True).start()
        finally:
            threading.stack_size(before)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, work = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)
