"""What a verify step tried, between wire message and plain value, both ways."""

from __future__ import annotations

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.protocol.generation import VerifyStep
from transport import codec


def step_to_wire(step: VerifyStep) -> pb.VerifyStep:
    source = step.rejected_source
    return pb.VerifyStep(
        draft_tokens=step.draft_tokens,
        accepted_tokens=step.accepted_tokens,
        positions=step.positions,
        rejected=step.rejected,
        rejected_source=codec.source_to_wire(source) if source is not None else pb.DRAFT_SOURCE_UNSPECIFIED,
        plan=codec.plan_to_wire(step.plan),
        round_trip=step.round_trip,
    )


def step_from_wire(step: pb.VerifyStep) -> VerifyStep:
    return VerifyStep(
        draft_tokens=step.draft_tokens,
        accepted_tokens=step.accepted_tokens,
        positions=step.positions,
        plan=codec.plan_from_wire(step.plan),
        rejected=step.rejected,
        rejected_source=codec.source_from_wire(step.rejected_source),
        round_trip=step.round_trip if step.HasField("round_trip") else None,
    )
