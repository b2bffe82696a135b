"""Bodies that are too long, or take too long to come, are not waited for."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.http_errors import HttpError

#: Bytes beyond the limit that are read and thrown away: a client that is cut off while it sends may lose the answer.
_DISCARDED: Final = 1 << 20
_LAST: Final = {"connection": "close"}


class BodyLimit:
    """Reads a request's body of at most so many bytes before anything else looks at it; ``seconds``: for all of it."""

    def __init__(self, app: ASGIApp, *, most: int, seconds: float) -> None:
        self._app = app
        self._most = most
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = None
        try:
            if _declared(scope) <= self._most + _DISCARDED:
                async with asyncio.timeout(self._seconds):
                    body = await self._read(receive)
        except TimeoutError:
            error = HttpError(408, f"the body did not come within {self._seconds:g} s", code="timeout")
            await error.response(_LAST)(scope, receive, send)
            return
        if body is None:
            error = HttpError(413, f"the body is longer than {self._most} bytes", code="body_too_large")
            await error.response(_LAST)(scope, receive, send)
            return
        await self._app(scope, _replaying(body, receive), send)

    async def _read(self, receive: Receive) -> bytes | None:
        """The body, as far as the client sent it; None if it is too long."""
        body, size, more = bytearray(), 0, True
        while more and size <= self._most + _DISCARDED:
            message = await receive()
            part = message.get("body", b"")
            more = message.get("more_body", False)
            size += len(part)
            if size <= self._most:
                body += part
        return bytes(body) if size <= self._most else None


def _declared(scope: Scope) -> int:
    """How long the body is by the client's word; 0 if it does not say."""
    length = dict(scope["headers"]).get(b"content-length", b"")
    return int(length) if length.isdigit() else 0


def _replaying(body: bytes, receive: Receive) -> Receive:
    """The body in one message, then whatever comes."""
    told = False

    async def replay() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
