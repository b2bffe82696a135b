"""Work that several ask for at once, or once more soon: done once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


@dataclass(slots=True)
class _Running(Generic[_V]):
    task: asyncio.Task[_V]
    waiting: int = 0


class SharedWork(Generic[_K, _V]):
    """Results by their keys, the latest ``kept``. For one event loop. A failure is told to all who wait, and not kept.

    Who leaves takes the work with him only if nobody else waits for it.
    """

    def __init__(self, kept: int) -> None:
        self._most = kept
        self._kept: OrderedDict[_K, _V] = OrderedDict()
        self._running: dict[_K, _Running[_V]] = {}

    async def get(self, key: _K, make: Callable[[], Awaitable[_V]]) -> _V:
        """Raises what ``make`` raises."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if (running := self._running.get(key)) is None:
            running = self._running[key] = _Running(asyncio.create_task(self._make(key, make)))
        running.waiting += 1
        try:
            return await asyncio.shield(running.task)
        finally:
            running.waiting -= 1
            if not running.waiting and not running.task.done():
                self._running.pop(key, None)
                running.task.cancel()

    async def _make(self, key: _K, make: Callable[[], Awaitable[_V]]) -> _V:
        try:
            made = await make()
        finally:
            if (running := self._running.get(key)) is not None and running.task is asyncio.current_task():
                del self._running[key]
        self._kept[key] = made
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return made
