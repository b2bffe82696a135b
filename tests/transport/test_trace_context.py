"""Which trace a request belongs to is told by whoever asks: what is malformed counts as absent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.protocol.messages import SpeculationPlan
from transport.codec import offer_from_wire, offer_to_wire, plan_to_wire
from transport.trace_context import NO_TRACE, TRACESTATE_LENGTH, TraceContext, checked, trace_context_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
MALFORMED = [
    "",
    "x",
    PARENT[:-1],
    PARENT + "0",
    PARENT + "-more",  # as a later version might have it
    " " + PARENT[1:],
    PARENT.upper(),
    PARENT.replace("-", "_"),
    f"ff-{TRACE}-{SPAN}-01",
    f"00-{'0' * 32}-{SPAN}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"00-{TRACE}-{SPAN}-0g",
    f"00-{TRACE}-{SPAN}-0\n",
    f"00-{TRACE}-{SPAN[:-1]}٣-01",  # a digit, though none of ASCII
    "0" * (1 << 20),
]


def test_what_is_valid_is_read():
    found = trace_context_of([(b"Host", b"x"), (b"TraceParent", PARENT.encode()), (b"tracestate", b"a=1, b@c=2")])
    assert found and found == TraceContext(PARENT, "a=1, b@c=2")
    assert (found.trace_id, found.span_id, found.flags) == (int(TRACE, 16), int(SPAN, 16), 1)
    assert found.metadata == (("traceparent", PARENT), ("tracestate", "a=1, b@c=2"))
    assert TraceContext(PARENT).metadata == (("traceparent", PARENT),)
    assert not NO_TRACE and NO_TRACE.metadata == ()


@pytest.mark.parametrize("value", MALFORMED, ids=lambda value: value[:60])
def test_what_is_malformed_counts_as_absent(value: str):
    assert checked(value, "a=1") == NO_TRACE
    assert trace_context_of([("traceparent", value)]) == NO_TRACE


@given(st.binary(max_size=80))
def test_whatever_bytes_come_they_are_valid_or_absent(value: bytes):
    found = trace_context_of([(b"traceparent", value), (b"tracestate", value)])
    assert found == NO_TRACE or found.traceparent.encode() == value


def test_two_of_them_are_none():
    assert trace_context_of([("traceparent", PARENT), ("traceparent", PARENT)]) == NO_TRACE


@pytest.mark.parametrize(
    "state",
    [
        "",
        ",",
        "a",
        "a=",
        "=1",
        "A=1",
        "a=1;b=2\x00",
        "a=ü",
        "a=b=c",
        "a=1" * 200,
        ",".join(f"k{n}=v" for n in range(33)),
    ],
    ids=lambda state: state[:30],
)
def test_a_state_that_is_malformed_or_long_is_dropped_alone(state: str):
    assert checked(PARENT, state) == TraceContext(PARENT)


def test_a_state_may_be_as_long_as_the_recommendation_has_it_and_come_in_parts():
    longest = f"a={'x' * 250},b={'y' * 250},c=zzzz"
    assert len(longest) == TRACESTATE_LENGTH and checked(PARENT, longest).tracestate == longest
    assert checked(PARENT, longest + "y").tracestate == ""
    parts = [("tracestate", "a=1"), ("traceparent", PARENT), ("tracestate", "b=2")]
    assert trace_context_of(parts).tracestate == "a=1,b=2"


def test_an_offer_carries_it_and_a_malformed_one_is_an_offer_without():
    plan = plan_to_wire(SpeculationPlan())
    wire = pb.SessionOffer(session="s", prompt=pb.Prompt(text=b"x"), plan=plan, traceparent=PARENT)
    assert offer_to_wire(offer_from_wire(wire)).traceparent == PARENT
    for value in MALFORMED:
        wire.traceparent = value
        assert offer_from_wire(wire).traceparent == ""
