"""How our errors travel as gRPC status, and how a status becomes one of our errors again."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import (
    AccessError,
    ConnectionFailedError,
    DivergedError,
    DragomanError,
    DrainingError,
    InputError,
    LimitExceededError,
    LoadingError,
    ModelError,
    NoVerifierError,
    ProtocolError,
    SessionError,
    VersionMismatchError,
    WrongServiceError,
)
from transport.address import Address
from transport.channels import PROXY_VARIABLE, proxy_variable
from transport.security import Security
from transport.tls_errors import explain_tls

_CODES: tuple[tuple[type[DragomanError], grpc.StatusCode], ...] = (
    (InputError, grpc.StatusCode.INVALID_ARGUMENT),
    (AccessError, grpc.StatusCode.PERMISSION_DENIED),
    (VersionMismatchError, grpc.StatusCode.FAILED_PRECONDITION),
    (LimitExceededError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (ProtocolError, grpc.StatusCode.INVALID_ARGUMENT),
    (ModelError, grpc.StatusCode.INTERNAL),
    (DrainingError, grpc.StatusCode.ABORTED),
    (DivergedError, grpc.StatusCode.DATA_LOSS),
    (NoVerifierError, grpc.StatusCode.NOT_FOUND),
    (LoadingError, grpc.StatusCode.UNAVAILABLE),
    (DragomanError, grpc.StatusCode.INTERNAL),
)
#: How the details of a LoadingError begin: UNAVAILABLE alone is what any broken connection says.
LOADING = "the model is still being loaded"
#: The services by what people call them, and the option that takes their address.
_SERVICES = {
    "verifier": ("VerifierService", "--verifier"),
    "coordinator": ("CoordinatorService", "--coordinator"),
}
#: Seconds to find out what listens at a wrong address.
_ASK_SECONDS = 2.0


def status_of(error: DragomanError) -> tuple[grpc.StatusCode, str]:
    """The status code and details for ``error``, the first fitting row of the table."""
    code = next(code for kind, code in _CODES if isinstance(error, kind))
    return code, str(error)


def error_of(error: grpc.RpcError, address: object, *, who: str = "verifier") -> DragomanError:
    """The error of ours that a failed call to ``address``, where a ``who`` should listen, stands for."""
    # Both kinds of grpc errors carry code() and details(), but RpcError itself promises neither.
    code = error.code() if hasattr(error, "code") else grpc.StatusCode.UNKNOWN
    details = (error.details() if hasattr(error, "details") else "") or code.name
    match code:
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED:
            if details.startswith(LOADING):
                return LoadingError(f"the {who} at {address} is still loading its model", remedy="try again later")
            remedy = f"start one with `dragoman {who}`, or check the address"
            variable = proxy_variable(address) if isinstance(address, Address) else None
            if not isinstance(address, Address) or variable is None:
                return ConnectionFailedError(f"no {who} answers at {address}: {details}", remedy=remedy)
            return ConnectionFailedError(
                f"no {who} answers at {address} through the proxy of {variable}: {details}",
                remedy=f"if it needs no proxy, add {address.host} to no_proxy, or set {PROXY_VARIABLE}=off",
            )
        case grpc.StatusCode.INVALID_ARGUMENT:
            return InputError.relayed(details)
        case grpc.StatusCode.PERMISSION_DENIED | grpc.StatusCode.UNAUTHENTICATED:
            return AccessError(f"the {who} at {address} refused: {details}")
        case grpc.StatusCode.FAILED_PRECONDITION:
            return VersionMismatchError(details)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return LimitExceededError(details)
        case grpc.StatusCode.ABORTED:
            return DrainingError(details)
        case grpc.StatusCode.DATA_LOSS:
            return DivergedError(details)
        case grpc.StatusCode.NOT_FOUND:
            return NoVerifierError(details)
        case grpc.StatusCode.UNIMPLEMENTED:
            return WrongServiceError(f"what listens at {address} is no Dragoman {who}: {details}")
        case _:
            return SessionError(f"the {who} at {address} gave up: {details}")


async def explain(
    error: grpc.RpcError, channel: grpc.aio.Channel, address: Address, *, who: str, security: Security | None = None
) -> DragomanError:
    """As ``error_of``; and where something else than a ``who`` listens, it is asked what it is, and where TLS is in the
    way, how. ``security``: what the channel was opened with."""
    explained = error_of(error, address, who=who)
    if isinstance(explained, ConnectionFailedError) and not isinstance(explained, LoadingError):
        security = security or Security.from_environment()
        return await explain_tls(explained.message, address, security, who=who) or explained
    if isinstance(explained, WrongServiceError):
        for other, (service, option) in _SERVICES.items():
            if other != who and await _serves(channel, pb.DESCRIPTOR.services_by_name[service].full_name):
                return WrongServiceError(f"{address} is a {other}, and no {who}", remedy=f"give it with {option}")
    return explained


async def _serves(channel: grpc.aio.Channel, service: str) -> bool:
    try:
        request = health_pb2.HealthCheckRequest(service=service)
        await health_pb2_grpc.HealthStub(channel).Check(request, timeout=_ASK_SECONDS)
    except grpc.RpcError:
        return False
    return True
