"""Who may call what, where peers have identities: one table for both services, and the check of it at every call.

What is not in the table nobody may call. Without mutual TLS nobody has an identity, and nothing is checked.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc

from speculation.errors import AccessError
from transport.identity import Identity, Role, peer_identity

log = logging.getLogger(__name__)

_PEOPLE: Final = frozenset({Role.CLIENT, Role.ADMIN})
#: By service and method.
MAY_CALL: Final = {
    "dragoman.v1.VerifierService": {
        "Assist": frozenset({Role.DRAFTER}),
        "Describe": _PEOPLE,
        "Generate": _PEOPLE,
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


def check_call(method: str, peer: Identity | None) -> None:
    """``method``: /service/name, as gRPC writes it. Raises AccessError if the peer may not call it."""
    service, _, name = method.removeprefix("/").partition("/")
    allowed = MAY_CALL.get(service, {}).get(name, frozenset())
    if peer is not None and peer.role in allowed:
        return
    who = f"certificate of {peer}" if peer is not None else "certificate without a role of Dragoman's"
    roles = " or ".join(sorted(allowed))
    remedy = f"use a certificate of the role {roles}: `dragoman certs issue`" if allowed else ""
    raise AccessError(f"a {who} may not call {name}", remedy=remedy)


def check_member(peer: Identity | None, kind: Role) -> None:
    """That a peer which registers as a verifier or a drafter is one. Raises AccessError."""
    if peer is not None and peer.role is not kind:
        remedy = f"use a certificate of the role {kind}: `dragoman certs issue`"
        raise AccessError(f"a certificate of {peer} may not join as a {kind}", remedy=remedy)


class RoleCheck(grpc.aio.ServerInterceptor):
    """Lets only those through to a handler whom the table names."""

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
            return make(_answering(method, handler.stream_unary or handler.unary_unary), **codecs)
        make = (
            grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
        )
        stream = handler.stream_stream or handler.unary_stream
        # A handler either is a generator of its answers, or writes them to the call.
        check = _streaming if inspect.isasyncgenfunction(stream) else _answering
        return make(check(method, stream), **codecs)


async def _admit(method: str, context: grpc.aio.ServicerContext) -> None:
    """Ends the call of a peer that may not make it."""
    try:
        check_call(method, peer_identity(context))
    except AccessError as error:
        log.warning("refused a call from %s: %s", context.peer(), error.message)
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))


def _answering(method: str, answer: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def checked(request: Any, context: grpc.aio.ServicerContext) -> Any:
        await _admit(method, context)
        return await answer(request, context)

    return checked


def _streaming(method: str, stream: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
    async def checked(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        await _admit(method, context)
        async with contextlib.aclosing(stream(request, context)) as responses:  # type: ignore[type-var]
            async for response in responses:
                yield response

    return checked
