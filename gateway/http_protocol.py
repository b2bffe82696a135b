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
    """``head_timeout``: seconds from the connection (in TLS, from its handshake), or from the first byte of a later
    request, until the request's head must be there. Nobody has shown a key by then. ``body_timeout``: of a body that is
    still sent though its request has been answered."""

    def __init__(self, *args: Any, head_timeout: float, body_timeout: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timeout = head_timeout
        self._body_timeout = body_timeout
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As asyncio calls it."""
        super().connection_made(transport)
        self.app = _with_peer(self.app, peer_of(transport))
        self._expect(self._head_timeout)

    def data_received(self, data: bytes) -> None:
        """As asyncio calls it."""
        super().data_received(data)
        if self._in_request:
            self._forget()
        elif self._late is None:
            of_a_body = self.conn.their_state is h11.SEND_BODY
            self._expect(self._body_timeout if of_a_body else self._head_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio calls it."""
        self._forget()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """What uvicorn answers to what it cannot read; it would do so in plain text."""
        if self._in_request:  # whoever is about to answer it is told that nobody listens any more
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # else it follows an answer, or is amid one
            body = json_bytes(_MALFORMED.body)
            length = ("content-length", str(len(body)))
            headers = [("content-type", "application/json"), length, ("connection", "close")]
            response = h11.Response(status_code=_MALFORMED.status, headers=headers, reason=b"Bad Request")
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    @property
    def _in_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect(self, seconds: float) -> None:
        """A request, or the rest of one."""
        self._late = self.loop.call_later(seconds, self._is_late, seconds)

    def _forget(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _is_late(self, seconds: float) -> None:
        self._late = None
        if not self._in_request:
            log.info("cut a connection off that brought no request for %g s", seconds)
            self.transport.abort()  # an orderly end of TLS would wait for the other side again


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
