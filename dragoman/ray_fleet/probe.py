"""Why a Ray cluster cannot be reached: asked over its own protocol, because Ray only says "failed to connect".

One call tells it all: the control service answers CheckAlive with its version, or refuses it for lack of a token.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.unknown_fields import UnknownFieldSet

from speculation.errors import ConnectionFailedError
from transport.address import Address

#: The reply's field 2 is the version of Ray.
_CHECK_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
#: Seconds for the connection, and for the answer.
_CONNECT, _ANSWER = 5.0, 5.0
#: Ray itself uses no proxy on the way to its control service.
_DIRECTLY = (("grpc.enable_http_proxy", 0),)
MODE = "RAY_AUTH_MODE"


@dataclass(frozen=True, slots=True)
class Token:
    """``source``: where it was found, for people."""

    value: str
    source: str


def find_token() -> Token | None:
    """Where Ray looks for it, in that order. Raises ConnectionFailedError for a file that cannot be read."""
    if value := os.environ.get("RAY_AUTH_TOKEN"):
        return Token(value.strip(), "RAY_AUTH_TOKEN")
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        return Token(path.read_text().strip(), str(path))
    except FileNotFoundError as error:
        if named:
            raise ConnectionFailedError(f"RAY_AUTH_TOKEN_PATH names {path}, which is not there") from error
        return None
    except OSError as error:
        raise ConnectionFailedError(f"the Ray token in {path} cannot be read: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Probed:
    """``auth_mode``: what RAY_AUTH_MODE has to be for this cluster."""

    version: str
    auth_mode: str


def probe(address: Address) -> Probed:
    """Raises ConnectionFailedError with the true reason if Ray cannot be used there with the token that is here."""
    _connect(address)
    wanted = os.environ.get(MODE, "").lower()
    if wanted not in ("token", "disabled", ""):
        return Probed("", wanted)  # a mode of a managed cluster, of which only Ray knows
    version = _check_alive(address, None)
    if version is not None:
        return Probed(version, wanted or "disabled")
    if wanted == "disabled":
        raise ConnectionFailedError(
            f"the Ray cluster at {address} wants a token, and RAY_AUTH_MODE=disabled forbids to send one",
            remedy="unset RAY_AUTH_MODE, and set RAY_AUTH_TOKEN to the cluster's token",
        )
    token = find_token()
    if token is None:
        raise ConnectionFailedError(
            f"the Ray cluster at {address} wants a token, and there is none here",
            remedy="set RAY_AUTH_TOKEN, or put it into ~/.ray/auth_token; `ray get-auth-token` on the cluster shows it",
        )
    version = _check_alive(address, token)
    if version is None:
        raise ConnectionFailedError(
            f"the Ray cluster at {address} refuses the token of {token.source}",
            remedy="take the cluster's own: `ray get-auth-token` there shows it",
        )
    return Probed(version, "token")


def _connect(address: Address) -> None:
    try:
        socket.create_connection((address.host, address.port), timeout=_CONNECT).close()
    except TimeoutError as error:
        raise ConnectionFailedError(
            f"no answer from {address} within {_CONNECT:g} s",
            remedy="check the address, and that no firewall drops the port of Ray's head node (6379 by default)",
        ) from error
    except OSError as error:
        raise ConnectionFailedError(
            f"nothing listens at {address}: {error.strerror or error}",
            remedy="start Ray there with `ray start --head`, or check --address",
        ) from error


def _check_alive(address: Address, token: Token | None) -> str | None:
    """The version of Ray there; None if it refuses. Raises ConnectionFailedError if it is no Ray."""
    metadata = (("authorization", f"Bearer {token.value}"),) if token else ()
    with grpc.insecure_channel(str(address), options=_DIRECTLY) as channel:
        try:
            call: Any = channel.unary_unary(_CHECK_ALIVE)  # without stubs: bytes in, bytes out
            answer: bytes = call(b"", timeout=_ANSWER, metadata=metadata)
        except grpc.RpcError as error:
            code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
            if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
                return None
            raise ConnectionFailedError(
                f"what listens at {address} does not answer as Ray's control service does ({code.name})",
                remedy="give the address that `ray start --head` printed (port 6379 by default), not the dashboard's",
            ) from error
    fields: Any = UnknownFieldSet(Empty.FromString(answer))
    return next((field.data.decode() for field in fields if field.field_number == 2), "")
