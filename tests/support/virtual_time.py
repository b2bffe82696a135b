"""An event loop whose clock jumps to whatever comes next: hours of faults take milliseconds, and one seed one course.

Nothing sleeps and no thread runs. What waits for something that cannot happen any more is told so at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar
from unittest import mock

Result = TypeVar("Result")


class StuckError(Exception):
    """Something is waited for, and nothing is left to happen."""


class Clock:
    """Seconds since the beginning."""

    def __init__(self) -> None:
        self.now = 0.0

    def read(self) -> float:
        """For ``time.monotonic`` and its like."""
        return self.now

    def pass_by(self, seconds: float) -> None:
        """For ``time.sleep``, and for time that is lost to everybody."""
        self.now += seconds


class _Waiting(selectors.SelectSelector):
    """Instead of waiting for a file it lets the time go by that the loop would have waited."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if timeout is None:
            raise StuckError(f"after {self._clock.now:.3f} s nothing is left to happen")
        self._clock.pass_by(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """``clock``: its own, which it moves."""

    def __init__(self) -> None:
        self.clock = Clock()
        super().__init__(_Waiting(self.clock))

    def time(self) -> float:
        """By the clock."""
        return self.clock.now


class VirtualThread:
    """An executor with one thread, or what looks like it from the event loop: ``seconds`` says how long each call
    takes, at whose end all of it happens."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._waiting: deque[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = deque()
        self._busy = False
        self._shut = False

    def submit(self, call: Callable[..., Result], /, *arguments: Any) -> Future[Result]:
        """Raises RuntimeError after ``shutdown``, as executors do."""
        if self._shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[Result] = Future()
        self._waiting.append((future, call, arguments))
        self._begin()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """What waits is cancelled, or done now."""
        self._shut = True
        while self._waiting:
            if cancel_futures:
                self._waiting.popleft()[0].cancel()
            else:
                self._do()

    def _begin(self) -> None:
        if self._waiting and not self._busy:
            self._busy = True
            asyncio.get_running_loop().call_later(self._seconds(), self._end)

    def _end(self) -> None:
        self._busy = False
        if self._waiting:
            self._do()
        self._begin()

    def _do(self) -> None:
        future, call, arguments = self._waiting.popleft()
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = call(*arguments)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)


@contextlib.contextmanager
def _virtual(clock: Clock) -> Iterator[None]:
    with (
        mock.patch.object(time, "monotonic", clock.read),
        mock.patch.object(time, "perf_counter", clock.read),
        mock.patch.object(time, "thread_time", clock.read),  # work takes no time
        mock.patch.object(time, "sleep", clock.pass_by),
    ):
        yield


def run_virtually(course: Callable[[Clock], Coroutine[Any, Any, Result]]) -> tuple[Result, float]:
    """What it returns, and how many seconds it took by its own clock.

    Raises StuckError, RuntimeError for whatever went wrong in a callback of the loop, and what the course raises.
    """
    loop = VirtualLoop()
    problems: list[Mapping[str, Any]] = []
    loop.set_exception_handler(lambda _, context: problems.append(context))
    try:
        with _virtual(loop.clock):
            result = loop.run_until_complete(course(loop.clock))
            loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
    if problems:
        raise RuntimeError(f"{problems[0]['message']}: {problems[0].get('exception')!r}")
    return result, loop.clock.now
