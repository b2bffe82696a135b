"""How large the parts of a client's request may be, so that it fits into a message with all of them.

Checked where a request is made, in words that name the field, and again where it is admitted.
"""

from __future__ import annotations

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import InputError
from transport.limits import MAX_MESSAGE_BYTES, WireLimits


def check_request_size(request: pb.GenerateRequest, limits: WireLimits | None = None) -> None:
    """Raises InputError, which names the field, its size and the limit."""
    limits = limits or WireLimits()
    field = "messages" if request.prompt.messages else "prompt"
    # With what frames each message: a million empty ones are not small.
    _check(field, request.prompt.ByteSize(), limits.prompt_bytes, "shorten it, or send the part that matters")
    stop = pb.GenerateRequest(stop=request.stop).ByteSize()
    _check("stop", stop, limits.stop_bytes, "give fewer or shorter ones")
    prediction = len(request.prediction)
    _check("prediction", prediction, limits.prediction_bytes, "leave out what is unlikely to come")
    received = len(request.received)
    _check("received", received, limits.received_bytes, "so long a text cannot be resumed; ask for the rest anew")
    _check("request", request.ByteSize(), MAX_MESSAGE_BYTES, "leave out what it can do without, such as a logit_bias")


def _check(field: str, size: int, limit: int, remedy: str) -> None:
    if size > limit:
        raise InputError(field, f"{size} bytes", f"is too long; the limit is {limit} bytes", remedy=remedy)
