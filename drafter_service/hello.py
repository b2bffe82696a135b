"""How a drafter introduces itself to a verifier."""

from __future__ import annotations

from drafter_service.draft_source import Drafter
from protos.dragoman.v1 import dragoman_pb2 as pb
from transport.limits import PROTOCOL_VERSION
from transport.version import VERSION


def hello_of(drafter: Drafter, name: str, max_sessions: int, seconds_per_token: float, instance: str = "") -> pb.Hello:
    """``seconds_per_token``: as measured, 0 if it was not. ``instance``: tells drafters of one name apart."""
    return pb.Hello(
        protocol_version=PROTOCOL_VERSION,
        name=name,
        model=drafter.model_name,
        vocab_size=drafter.vocab_size,
        vocab_hash=drafter.vocab_hash,
        max_sessions=max_sessions,
        seconds_per_token=seconds_per_token,
        version=VERSION,
        instance=instance,
        takes_several=True,
    )
