"""The client's end: whether it is still there, and how to be rid of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from speculation.errors import DrainingError
from transport.identity import Identity

log = logging.getLogger(__name__)

#: Where ``server.py`` puts the ``Peer`` of a request.
PEER: Final = "dragoman.peer"
#: Where ``access.py`` puts whose request it is; absent where nobody is asked.
HOLDER: Final = "dragoman.holder"


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end. ``identity``: of its certificate, None without one; ``certificate``: in PEM."""

    transport: asyncio.Transport
    identity: Identity | None = None
    certificate: bytes = b""


async def while_connected(receive: Receive, stopping: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """``work`` to its end, or until the client leaves, which cancels it; the request's body must have been read.

    Raises what ``work`` raises, and DrainingError if ``stopping`` is set before it is done.
    """
    working = asyncio.ensure_future(work)
    ends = [asyncio.ensure_future(_gone(receive)), asyncio.ensure_future(stopping.wait())]
    try:
        await asyncio.wait((working, *ends), return_when=asyncio.FIRST_COMPLETED)
        stopped = not working.done() and ends[1].done()
    finally:
        for task in (working, *ends):
            task.cancel()
        await asyncio.gather(working, *ends, return_exceptions=True)
    if stopped:
        raise DrainingError("the gateway stopped before the text was whole", remedy="ask again")
    if not working.cancelled():
        working.result()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class SendLimit:
    """Cuts a client off that takes nothing of its answer for ``seconds`` while there is more of it; of its end, which
    nobody waits for, the kernel does (``server.py``)."""

    def __init__(self, app: ASGIApp, *, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def bounded(message: Message) -> None:
            try:
                async with asyncio.timeout(self._seconds):
                    await send(message)
            except TimeoutError:
                log.info("cut a client off that took nothing for %g s", self._seconds)
                peer: Peer | None = scope.get(PEER)
                if peer is not None:
                    peer.transport.abort()  # whoever waits for the client to leave hears of it

        await self._app(scope, receive, bounded if scope["type"] == "http" else send)
