"""Who may call what, where peers have identities: one table for both services, and the check of it at every call.

What is not in the table nobody may call. Without mutual TLS nobody has an identity, and nothing is checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc

from speculation.errors import AccessError
from transport.audit import audit
from transport.identity import Identity, Role, peer_certificate, peer_identity
from transport.revocations import RevocationFile
from transport.tokens import TokenFile

log = logging.getLogger(__name__)

_PEOPLE: Final = frozenset({Role.CLIENT, Role.ADMIN})
#: By service and method.
MAY_CALL: Final = {
    "dragoman.v1.VerifierService": {
        "Assist": frozenset({Role.DRAFTER}),
        "Describe": _PEOPLE,
        "Detokenize": _PEOPLE,
        "Generate": _PEOPLE,
        "Tokenize": _PEOPLE,
    },
    "dragoman.v1.CoordinatorService": {
        "Drain": frozenset({Role.ADMIN}),
        "Join": frozenset({Role.VERIFIER, Role.DRAFTER}),
        "Route": _PEOPLE,
        "Status": _PEOPLE,
    },
    # Whoever has a certificate: it says no more than whether a service is there.
    "grpc.health.v1.Health": dict.fromkeys(("Check", "List", "Watch"), frozenset(Role)),
}


#: Whose stream runs is asked for his right to it so often.
RECHECK_SECONDS: Final = 1.0
#: Of the call that runs; None: nobody was asked who he is.
_CALLER: contextvars.ContextVar[Identity | None] = contextvars.ContextVar("caller", default=None)


def caller() -> Identity | None:
    """Who makes the call that this runs in; None: nobody was asked who he is."""
    return _CALLER.get()


def check_call(method: str, peer: Identity | None) -> None:
    """``method``: /service/name, as gRPC writes it. Raises AccessError if the peer may not call it."""
    service, _, name = method.removeprefix("/").partition("/")
    allowed = MAY_CALL.get(service, {}).get(name, frozenset())
    if peer is not None and peer.role in allowed:
        return
    roles = " or ".join(sorted(allowed))
    remedy = f"use a certificate or token of the role {roles}" if allowed else ""
    raise AccessError(f"{peer or 'a certificate without a role'} may not call {name}", remedy=remedy)


def check_member(peer: Identity | None, kind: Role) -> None:
    """That a peer which registers as a verifier or a drafter is one. Raises AccessError."""
    if peer is not None and peer.role is not kind:
        remedy = f"use a certificate or token of the role {kind}"
        raise AccessError(f"{peer} may not join as a {kind}", remedy=remedy)


class RoleCheck(grpc.aio.ServerInterceptor):
    """Lets only those through to a handler whom the table names, and ends the streams of those who may not any more.
    ``tokens``: by which callers are known; None: by their certificates. ``revocations``: of these."""

    def __init__(self, tokens: TokenFile | None = None, revocations: RevocationFile | None = None) -> None:
        self._tokens = tokens
        self._revocations = revocations

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """The handler, behind the check: only the call itself knows its peer."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:  # no such method, which gRPC says
            return None
        method = handler_call_details.method
        codecs = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if not handler.response_streaming:
            make = (
                grpc.stream_unary_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_unary_rpc_method_handler
            )
            return make(self._answering(method, handler.stream_unary or handler.unary_unary), **codecs)
        make = (
            grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
        )
        stream = handler.stream_stream or handler.unary_stream
        # A handler either is a generator of its answers, or writes them to the call.
        check = self._streaming if inspect.isasyncgenfunction(stream) else self._answering
        return make(check(method, stream), **codecs)

    def _peer(self, context: grpc.aio.ServicerContext) -> Identity | None:
        """Raises AccessError for one that is not known, or no longer."""
        if self._tokens is not None:
            headers = dict(context.invocation_metadata() or ())
            return self._tokens.holder(headers.get("authorization"))  # type: ignore[arg-type]
        peer = peer_identity(context)
        if peer is not None and self._revocations is not None:
            self._revocations.check(peer, peer_certificate(context))
        return peer

    async def _admit(self, method: str, context: grpc.aio.ServicerContext) -> None:
        """Ends the call of a peer that may not make it."""
        code, name = grpc.StatusCode.PERMISSION_DENIED, method.rpartition("/")[2]
        peer = None
        try:
            if self._tokens is not None:
                code = grpc.StatusCode.UNAUTHENTICATED
            peer = self._peer(context)
            code = grpc.StatusCode.PERMISSION_DENIED
            check_call(method, peer)
        except AccessError as error:
            log.warning("refused a call of %s from %s: %s", name, context.peer(), error.message)
            audit("refused", by=peer, call=name, peer=context.peer(), reason=error.message)
            await context.abort(code, str(error))
            return
        _CALLER.set(peer)

    def _answering(self, method: str, answer: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def checked(request: Any, context: grpc.aio.ServicerContext) -> Any:
            await self._admit(method, context)
            return await answer(request, context)

        return checked

    def _streaming(
        self, method: str, stream: Callable[..., AsyncGenerator[Any, None]]
    ) -> Callable[..., AsyncGenerator[Any, None]]:
        async def checked(request: Any, context: grpc.aio.ServicerContext) -> AsyncGenerator[Any, None]:
            await self._admit(method, context)
            async with (
                self._watched(context) as unknown,
                contextlib.aclosing(stream(request, context)) as responses,
            ):
                async for response in responses:
                    yield response
                    if unknown.is_set():
                        await self._admit(method, context)

        return checked

    @contextlib.asynccontextmanager
    async def _watched(self, context: grpc.aio.ServicerContext) -> AsyncIterator[asyncio.Event]:
        """Set once the caller is not known any more; the call of one who does not read, so that he cannot be told, is
        ended then."""
        handler, unknown = asyncio.current_task(), asyncio.Event()
        assert handler is not None
        watching = asyncio.create_task(self._watch(handler, context, unknown))
        try:
            yield unknown
        finally:
            watching.cancel()

    async def _watch(
        self, handler: asyncio.Task[Any], context: grpc.aio.ServicerContext, unknown: asyncio.Event
    ) -> None:
        while self._still_known(context):
            await asyncio.sleep(RECHECK_SECONDS)
        unknown.set()
        await asyncio.sleep(2 * RECHECK_SECONDS)
        handler.cancel()

    def _still_known(self, context: grpc.aio.ServicerContext) -> bool:
        """What cannot be read keeps others out; those that are in have done nothing to deserve it."""
        if not all(each.readable for each in (self._tokens, self._revocations) if each is not None):
            return True
        try:
            self._peer(context)
        except AccessError:
            return False
        return True
