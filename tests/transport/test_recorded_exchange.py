"""The wire is the one of the release before: an exchange that it recorded is played again, byte for byte.

``recorded_exchange.json`` was written by version 0.1.0 before the rooms of the core were built. It changes only when
the protocol does. Two values differ since: but for the race, drafters are offered a seed of their own, and a verifier
says that it takes several messages in one.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.protocol.generation import Chunk, Finished, Started
from speculation.sampling.noise import drafter_seed
from speculation.sampling.params import Rule
from tests.support.recorded_exchange import asked, drafter_side, verifier_side
from transport.generation_codec import event_from_wire, event_to_wire, request_from_wire, request_to_wire
from transport.limits import WireLimits

RECORDED = json.loads(Path(__file__).with_name("recorded_exchange.json").read_text())
RULES = [Rule.RACE, Rule.EXACT]


def recorded(rule: Rule, kind: str) -> list[bytes]:
    return [base64.b64decode(message) for message in RECORDED[rule.value][kind]]


def as_offered_now(message: bytes) -> bytes:
    parsed = pb.AssistResponse.FromString(message)
    if parsed.HasField("offer") and parsed.offer.rule != pb.RULE_RACE:
        parsed.offer.sampling.seed = drafter_seed(parsed.offer.sampling.seed)
    if parsed.HasField("welcome"):
        parsed.welcome.takes_several = True
    return parsed.SerializeToString(deterministic=True)


@pytest.mark.parametrize("rule", RULES)
async def test_a_verifier_sends_the_recorded_bytes(rule: Rule):
    played = await verifier_side(rule)
    assert played["to_client"] == recorded(rule, "to_client")
    assert played["to_drafter"] == [as_offered_now(message) for message in recorded(rule, "to_drafter")]


def without_confidence(message: bytes) -> tuple[bytes, float]:
    """A span's confidence by itself: in its last bit it is the processor's."""
    parsed = pb.AssistRequest.FromString(message)
    confidence = parsed.span.confidence
    if parsed.HasField("span"):
        parsed.span.ClearField("confidence")
    return parsed.SerializeToString(deterministic=True), confidence


@pytest.mark.parametrize("rule", RULES)
def test_a_drafter_answers_with_the_recorded_bytes(rule: Rule):
    answers = [without_confidence(message) for message in drafter_side(recorded(rule, "to_drafter"))]
    expected = [without_confidence(message) for message in recorded(rule, "from_drafter")]
    assert [message for message, _ in answers] == [message for message, _ in expected]
    confidences = [confidence for _, confidence in expected]
    assert any(confidences)
    assert [confidence for _, confidence in answers] == pytest.approx(confidences, rel=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_plain_values_and_messages_are_the_same_thing_both_ways(rule: Rule):
    (message,) = recorded(rule, "from_client")
    assert message == asked(rule).SerializeToString(deterministic=True)
    decoded = request_from_wire(pb.GenerateRequest.FromString(message), WireLimits())
    assert request_to_wire(decoded).SerializeToString(deterministic=True) == message
    kinds = []
    for data in recorded(rule, "to_client"):
        event = event_from_wire(pb.GenerateResponse.FromString(data))
        assert event is not None and event_to_wire(event).SerializeToString(deterministic=True) == data
        kinds.append(type(event))
    assert kinds == [Started, *[Chunk] * (len(kinds) - 2), Finished]
