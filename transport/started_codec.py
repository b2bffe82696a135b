"""Between wire messages and plain values, both ways: that a verifier has taken a request on."""

from __future__ import annotations

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.protocol.generation import Started
from transport import codec
from transport.prompt_codec import tool_format_from_wire, tool_format_to_wire


def started_to_wire(started: Started) -> pb.GenerateStarted:
    return pb.GenerateStarted(
        session=started.session,
        prompt_tokens=started.prompt_tokens,
        drafters=started.drafters,
        received_bytes=started.received_bytes,
        model=started.model,
        vocab_hash=started.vocab_hash,
        dtype=started.dtype,
        rule=codec.rule_to_wire(started.rule) if started.rule is not None else pb.RULE_UNSPECIFIED,
        guided=started.guided,
        logprobs=started.logprobs,
        tool_format=tool_format_to_wire(started.tool_format),
        template_kwargs=started.template_kwargs,
        special_tokens=started.special_tokens,
        cache_salt=started.cache_salt,
    )


def started_from_wire(started: pb.GenerateStarted) -> Started:
    return Started(
        session=started.session,
        prompt_tokens=started.prompt_tokens,
        drafters=started.drafters,
        received_bytes=started.received_bytes,
        model=started.model,
        vocab_hash=started.vocab_hash,
        dtype=started.dtype,
        rule=codec.rule_from_wire(started.rule) if started.rule != pb.RULE_UNSPECIFIED else None,
        guided=started.guided,
        logprobs=started.logprobs,
        tool_format=tool_format_from_wire(started.tool_format),
        template_kwargs=started.template_kwargs,
        special_tokens=started.special_tokens,
        cache_salt=started.cache_salt,
    )
