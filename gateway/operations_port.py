"""A port of one replica's own, where several gateways share theirs: a collector is to see the same one each time."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.http_errors import HttpError

_ROUTES: Final = frozenset({"/health", "/metrics"})


class OperationsPort:
    """At ``port`` there are health and metrics, and nothing else; everything at other ports."""

    def __init__(self, app: ASGIApp, *, port: int) -> None:
        self._app = app
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["server"][1] == self._port and scope["path"] not in _ROUTES:
            await HttpError(404, "health and metrics alone are here").response()(scope, receive, send)
            return
        await self._app(scope, receive, send)
