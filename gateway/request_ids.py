"""Which request an answer is of: the client's own name for it, or a new one, in ``x-request-id``, as OpenAI has it."""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from transport.audit import audit

HEADER: Final = b"x-request-id"
#: What a client may call one: a UUID, say. Anything else might be made to look like more lines of a log.
_NAME: Final = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
_current: ContextVar[str | None] = ContextVar("request_id", default=None)


def audit_request(event: str, *, by: object = None, **facts: object) -> None:
    """``audit`` of what the request that is being answered brought about, with its id."""
    audit(event, by=by, **facts, request=_current.get())


class RequestIds:
    """Gives each request its id, and each answer that of its request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == HEADER), b"")
        told = given if _NAME.fullmatch(given) else f"req_{secrets.token_hex(16)}".encode()

        async def naming(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (HEADER, told)]}
            await send(message)

        before = _current.set(told.decode())
        try:
            await self._app(scope, receive, naming)
        finally:
            _current.reset(before)
