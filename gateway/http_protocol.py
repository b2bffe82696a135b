"""HTTP/1.1 on a connection, as uvicorn has it, with what it lacks: a limit to how long the head of a request may take,
who is at the other end, and errors in OpenAI's shape."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.connection import PEER, Peer
from gateway.http_errors import HttpError
from gateway.json_bytes import json_bytes
from gateway.tls import peer_of

log = logging.getLogger(__name__)

#: What is no HTTP/1.1, or tells its length in two ways.
_MALFORMED: Final = HttpError(400, "this is no valid request of HTTP 1.1", code="invalid_http")


class HttpProtocol(H11Protocol):
    """``head_timeout``: seconds from the connection, or from the first byte of a later request, until the request's
    head must be there. Nobody has shown a key by then."""

    def __init__(self, *args: Any, head_timeout: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timeout = head_timeout
        self._head_missing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As asyncio calls it."""
        super().connection_made(transport)
        self.app = _with_peer(self.app, peer_of(transport))
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """As asyncio calls it."""
        super().data_received(data)
        if self._in_request:
            self._forget_head()
        elif self._head_missing is None:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio calls it."""
        self._forget_head()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """What uvicorn answers to what it cannot read; it would do so in plain text."""
        body = json_bytes(_MALFORMED.body)
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        response = h11.Response(status_code=_MALFORMED.status, headers=headers, reason=b"Bad Request")
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    @property
    def _in_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_head(self) -> None:
        self._head_missing = self.loop.call_later(self._head_timeout, self._head_is_late)

    def _forget_head(self) -> None:
        if self._head_missing is not None:
            self._head_missing.cancel()
            self._head_missing = None

    def _head_is_late(self) -> None:
        self._head_missing = None
        if not self._in_request:
            log.info("cut a connection off that brought no request for %g s", self._head_timeout)
            self.transport.close()


class OneLength:
    """Refuses a request that tells its length in two ways, and closes: what stands before this server may have taken
    the other one, and the rest for the next request (RFC 9112, section 6.1)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        names = {name for name, _ in scope["headers"]} if scope["type"] == "http" else set()
        if {b"content-length", b"transfer-encoding"} <= names:
            await _MALFORMED.response({"connection": "close"})(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _with_peer(app: Any, peer: Peer) -> ASGIApp:
    async def with_peer(scope: Scope, receive: Receive, send: Send) -> None:
        scope[PEER] = peer
        await app(scope, receive, send)

    return with_peer
