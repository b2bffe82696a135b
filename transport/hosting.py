"""A service that comes up by itself: what the actors of all three services share.

Ray restarts an actor by running its constructor again, and nobody calls it after that. So the constructor starts a
task in the running event loop, which loads, binds and serves. Everything, grpc.aio's objects above all, lives in that
one loop: an actor that has coroutine methods runs its constructor in the loop that its methods run in. (A thread with
a loop of its own would do as well, but every method would have to hop over to it.) What blocks, such as loading a
model, belongs into a thread.

Ray is not imported: whoever starts the actor brings along what it needs to know of it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from speculation.errors import AccessError, DragomanError, InputError, ModelError, VersionMismatchError
from transport.address import Address
from transport.backoff import Backoff
from transport.tracing import start_tracing, stop_tracing
from transport.version import VERSION

log = logging.getLogger(__name__)

#: Of these no later attempt is better.
_FINAL = (AccessError, InputError, ModelError, VersionMismatchError)


class SelfStarting(ABC):
    """Construct inside a running event loop. ``host``: asked for the address of the machine that this runs on.
    ``placed``: what was asked of that machine, for ``describe`` to tell."""

    #: As what it records spans, if its environment asks for them; "" is never.
    traces_as = ""

    def __init__(
        self,
        name: str,
        host: Callable[[], str],
        *,
        placed: Mapping[str, object] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.name = name
        self._host = host
        self._placed = dict(placed or {})
        self._backoff = backoff or Backoff(shortest=0.5, longest=10.0)
        self._address: Address | None = None
        self._problem: DragomanError | None = None
        self._settled = asyncio.Event()
        self._stopped = False
        self._running = asyncio.get_running_loop().create_task(self._run())

    @abstractmethod
    async def _serve(self, host: str, serving: Callable[[Address | None], None]) -> None:
        """Load, bind, call ``serving`` with the address (None: it listens nowhere), and serve until cancelled.

        Raises DragomanError. It is called again after a while whatever it raises, or if it returns.
        """

    @abstractmethod
    def _facts(self) -> dict[str, Any]:
        """What ``describe`` tells of this service, for JSON."""

    async def _run(self) -> None:
        failures = 0

        def serving(address: Address | None) -> None:
            nonlocal failures
            failures = 0
            self._address, self._problem = address, None
            self._settled.set()
            log.info("%s serves%s", self.name, f" at {address}" if address else "")

        if self.traces_as:
            await asyncio.to_thread(start_tracing, self.traces_as)
        while True:
            try:
                await self._serve(self._host(), serving)
                raise DragomanError(f"{self.name} stopped serving")
            except DragomanError as error:
                self._problem = error
            except Exception as error:  # one that nobody foresaw must not leave an actor that only looks alive
                log.exception("%s failed", self.name)
                self._problem = DragomanError(f"{self.name} failed: {type(error).__name__}: {error}")
            self._address = None
            log.log(
                logging.WARNING if failures == 0 else logging.DEBUG, "%s: %s; trying again", self.name, self._problem
            )
            if isinstance(self._problem, _FINAL):
                self._settled.set()
            else:
                self._settled.clear()
            await asyncio.sleep(self._backoff.delay(failures))
            failures += 1

    async def ready(self) -> dict[str, Any]:
        """Wait until it serves; returns ``describe()``. Raises InputError or ModelError if it never will."""
        await self._settled.wait()
        if self._problem is not None:
            raise self._problem
        return await self.describe()

    async def address(self) -> str:
        """Where it serves, as soon as it does."""
        return str((await self.ready())["address"])

    async def describe(self) -> dict[str, Any]:
        """How it stands, for JSON. ``problem`` is "" unless it is trying to come up and failed before."""
        return {
            "name": self.name,
            "address": str(self._address) if self._address else "",
            "host": self._host(),
            "pid": os.getpid(),
            "version": VERSION,
            "placed": self._placed,
            "problem": str(self._problem or ""),
            "serving": self._settled.is_set() and self._problem is None,
            **self._facts(),
        }

    async def stop(self) -> None:
        """Leave the fleet and serve no more; for good, as long as the process lives. Idempotent."""
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        if self.traces_as:
            await asyncio.to_thread(stop_tracing)
        self._address = None
        self._problem = DragomanError(f"{self.name} was stopped")
        self._settled.set()
