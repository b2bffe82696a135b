"""How our errors travel as gRPC status, and how a status becomes one of our errors again."""

from __future__ import annotations

import grpc

from protos.channels import PROXY_VARIABLE, proxy_variable
from protos.transport import Address
from speculation.errors import (
    ConnectionFailedError,
    DivergedError,
    DragomanError,
    DrainingError,
    InputError,
    LimitExceededError,
    ModelError,
    NoVerifierError,
    ProtocolError,
    SessionError,
    VersionMismatchError,
)

_CODES: tuple[tuple[type[DragomanError], grpc.StatusCode], ...] = (
    (InputError, grpc.StatusCode.INVALID_ARGUMENT),
    (VersionMismatchError, grpc.StatusCode.FAILED_PRECONDITION),
    (LimitExceededError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (ProtocolError, grpc.StatusCode.INVALID_ARGUMENT),
    (ModelError, grpc.StatusCode.INTERNAL),
    (DrainingError, grpc.StatusCode.ABORTED),
    (DivergedError, grpc.StatusCode.DATA_LOSS),
    (NoVerifierError, grpc.StatusCode.NOT_FOUND),
    (DragomanError, grpc.StatusCode.INTERNAL),
)


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
            remedy = f"start one with `dragoman {who}`, or check the address"
            variable = proxy_variable(address) if isinstance(address, Address) else None
            if variable is None:
                return ConnectionFailedError(f"no {who} answers at {address}: {details}", remedy=remedy)
            return ConnectionFailedError(
                f"no {who} answers at {address} through the proxy of {variable}: {details}",
                remedy=f"if it needs no proxy, add {address.host} to no_proxy, or set {PROXY_VARIABLE}=off",
            )
        case grpc.StatusCode.INVALID_ARGUMENT:
            return InputError.relayed(details)
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
            return ProtocolError(f"what listens at {address} is no Dragoman {who}: {details}")
        case _:
            return SessionError(f"the {who} at {address} gave up: {details}")
