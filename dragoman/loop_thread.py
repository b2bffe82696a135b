"""An event loop for callers that have none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import grpc.aio

from speculation.errors import SessionError

_T = TypeVar("_T")


class LoopThread:
    """An event loop in a thread of its own.

    gRPC wakes the loops of a process through a socket that it closes with its last object, in whichever thread that is
    collected. A loop that was being woken then would say that its file descriptor is bad, so gRPC is held until it is
    closed.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dragoman", daemon=True)
        self._thread.start()
        self.run(_hold_grpc())

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Its result; it is cancelled if the caller is interrupted. Raises SessionError once it is closed."""
        if self._loop.is_closed():
            work.close()
            raise SessionError("it is closed")
        done: Future[_T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return done.result()
        except BaseException:
            done.cancel()
            raise

    def close(self) -> None:
        """Idempotent."""
        if self._loop.is_closed():
            return
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        grpc.aio.shutdown_grpc_aio()


async def _hold_grpc() -> None:
    """In the loop that it is to know of."""
    grpc.aio.init_grpc_aio()
