"""The fleet as a state machine: who is in it, who drafts for whom, what is ordered, what is not believed."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.config import CoordinatorConfig, HistorySettings, PlacementSettings, PlanSettings
from coordinator.fleet import Fleet
from coordinator.planning import RESEND_SECONDS
from coordinator.status import status_of_fleet
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import InputError, LimitExceededError, VersionMismatchError
from tests.fleet_members import FakeDrafter, FakeSession, FakeVerifier, FleetDriver


def verifier(*sessions: str, instance: str = "v1", **kwargs) -> FakeVerifier:
    return FakeVerifier(instance, sessions={name: FakeSession() for name in sessions}, **kwargs)


# ---- membership ---------------------------------------------------------------------------------------------------


def test_silence_ends_a_membership_and_its_sessions():
    target, drafter = verifier("s"), FakeDrafter()
    driver = FleetDriver(target, drafter)
    driver.run(1)
    driver.silence(target)
    driver.run(2.75)
    assert len(driver.fleet.registry.verifiers) == 1 and driver.fleet.sessions
    driver.run(0.5)
    assert driver.fleet.registry.verifiers == [] and not driver.fleet.sessions
    assert [gone.member.instance for gone in driver.dismissed] == ["v1"]
    assert len(driver.fleet.registry.drafters) == 1
    driver.join(target)
    driver.run(0.5)
    assert len(driver.fleet.sessions) == 1


def test_members_of_one_name_are_told_apart_and_one_instance_replaces_itself():
    first, other = FakeDrafter("d1"), FakeDrafter("d2")
    driver = FleetDriver(first)
    joined = driver.fleet.join(other.registration(), driver.now)
    registration = other.registration()
    registration.instance, registration.name = "d3", "name of d1"
    driver.fleet.join(registration, driver.now)
    assert len(driver.fleet.registry.drafters) == 3
    again = driver.fleet.join(other.registration(), driver.now)
    driver.tick()
    assert [gone.member for gone in driver.dismissed] == [joined] and again in driver.fleet.registry
    # What the old stream still says, or its end, is nothing to the new one.
    driver.fleet.receive(joined, pb.JoinRequest(leave=pb.Leave()), driver.now)
    assert again in driver.fleet.registry and len(driver.fleet.registry.drafters) == 3


def test_a_goodbye_needs_no_waiting():
    target = verifier("s")
    driver = FleetDriver(target)
    driver.run(0.5)
    driver.fleet.receive(next(iter(driver.members)), pb.JoinRequest(leave=pb.Leave()), driver.now)
    assert not list(driver.fleet.registry) and not driver.fleet.sessions


def test_a_verifier_that_registers_again_keeps_its_sessions():
    target = verifier("s")
    target.link(1, "d1")
    driver = FleetDriver(target)
    driver.run(5)
    session = next(iter(driver.fleet.sessions.values()))
    driver.silence(target)
    driver.join(target)
    driver.tick()
    driver.run(0.5)
    assert next(iter(driver.fleet.sessions.values())) is session and session.verifier in driver.fleet.registry


@pytest.mark.parametrize(
    "field, value",
    [
        ("instance", ""),
        ("name", ""),
        ("name", "x" * 201),
        ("model", ""),
        ("max_sessions", 0),
        ("verifier", pb.VerifierKind(address="")),
        ("verifier", pb.VerifierKind(address="no/address")),
        ("verifier", pb.VerifierKind(address="host:0")),
        ("drafter", pb.DrafterKind(seconds_per_token=math.nan)),
        ("drafter", pb.DrafterKind(seconds_per_token=-1.0)),
    ],
)
def test_malformed_registrations_are_refused_with_the_field(field: str, value: object):
    registration = FakeVerifier().registration()
    if isinstance(value, pb.VerifierKind | pb.DrafterKind):
        getattr(registration, field).CopyFrom(value)
    else:
        setattr(registration, field, value)
    with pytest.raises(InputError, match=f"registration.{field}"):
        Fleet(CoordinatorConfig(), 0.0).join(registration, 0.0)


def test_other_versions_and_one_member_too_many_are_refused():
    fleet = Fleet(CoordinatorConfig(max_members=1), 0.0)
    registration = FakeVerifier().registration()
    registration.protocol_version = 99
    with pytest.raises(VersionMismatchError, match="99"):
        fleet.join(registration, 0.0)
    registration = FakeVerifier().registration()
    registration.ClearField("verifier")
    with pytest.raises(InputError, match=r"registration\.kind"):
        fleet.join(registration, 0.0)
    fleet.join(FakeVerifier("v1").registration(), 0.0)
    with pytest.raises(LimitExceededError, match="max_members"):
        fleet.join(FakeVerifier("v2").registration(), 0.0)
    fleet.join(FakeVerifier("v1").registration(), 0.0)


# ---- orders -------------------------------------------------------------------------------------------------------


def test_a_session_gets_the_drafter_that_is_fast_and_near():
    target = verifier("s")
    target.link(1, "slow", token=0.02)
    target.link(2, "far", trip=0.3)
    target.link(3, "good")
    driver = FleetDriver(target)
    driver.run(1)
    assert target.links_of("s") == [3]
    assert target.sessions["s"].plan.width > 0


def test_a_new_session_does_not_wait_for_the_next_round():
    target = verifier()
    target.link(1, "d1")
    driver = FleetDriver(target)
    driver.run(1)
    assert not driver.fleet.urgent
    target.sessions["s"] = FakeSession()
    driver.fleet.receive(next(iter(driver.members)), target.report(), driver.now)
    assert driver.fleet.urgent
    driver.tick()
    assert target.links_of("s") == [1] and not driver.fleet.urgent


def test_who_wants_no_draft_or_was_declined_gets_none():
    target = verifier("plain", "declined", "drafted")
    target.sessions["plain"].no_draft = True
    target.sessions["declined"].declined = [1]
    target.link(1, "d1")
    driver = FleetDriver(target)
    driver.run(5)
    assert [target.links_of(name) for name in target.sessions] == [[], [], [1]]
    named = {order.placement.session or order.plan.session for order in target.orders}
    assert "plain" not in named


def test_a_drafter_that_serves_two_verifiers_is_not_given_more_than_it_takes():
    targets = [verifier("a", "b", instance="v1"), verifier("c", "d", instance="v2", address="10.0.0.2:50061")]
    for target in targets:
        target.link(1, "d1", room=4, token=0.001)
    driver = FleetDriver(*targets, FakeDrafter("d1", token=0.001, max_sessions=3))
    driver.run(5)
    assert sum(len(session.links) for target in targets for session in target.sessions.values()) == 3


def test_orders_are_repeated_though_nothing_changed():
    target = verifier("s")
    target.link(1, "d1")
    driver = FleetDriver(target)
    driver.run(5)
    target.orders.clear()
    driver.run(4 * RESEND_SECONDS)
    kinds = [order.WhichOneof("message") for order in target.orders]
    assert kinds.count("plan") == kinds.count("placement") == 4
    assert {tuple(order.placement.links) for order in target.orders if order.HasField("placement")} == {(1,)}


def test_sessions_do_not_flap():
    """Equal drafters, sessions that come and go elsewhere: who sits, stays."""
    target = verifier(*"abcd")
    for number in (1, 2):
        target.link(number, f"d{number}")
    driver = FleetDriver(target)
    driver.run(6)
    seats = {name: list(target.links_of(name)) for name in "abcd"}
    assert sorted(seats.values()) == [[1], [1], [2], [2]]
    target.orders.clear()
    for round_ in range(10):
        target.links[1].round_trip = 0.005 + 0.0005 * (round_ % 3)
        driver.run(2)
    assert {name: target.links_of(name) for name in "abcd"} == seats


def test_a_dead_link_is_replaced_at_once():
    target = verifier("s")
    target.link(1, "d1")
    target.link(2, "d2", token=0.006)
    driver = FleetDriver(target)
    driver.run(2)
    assert target.links_of("s") == [1]
    del target.links[1]
    target.sessions["s"].links = []
    driver.run(0.25)
    assert target.links_of("s") == [2]


def test_a_drafter_that_lies_about_its_speed_does_not_keep_the_session():
    target = verifier("s", idle_links={1})
    target.link(1, "liar", token=0.0001, trip=0.001)
    target.link(2, "honest", token=0.004)
    driver = FleetDriver(target)
    driver.run(1)
    assert target.links_of("s") == [1]
    driver.run(14)
    assert target.links_of("s") == [2]
    driver.run(10)
    assert target.links_of("s") == [2]


def test_a_verifier_that_does_not_obey_is_taken_as_it_is():
    target = verifier("s", obeys=False)
    target.link(1, "d1", token=0.01)
    target.link(2, "d2", token=0.002)
    target.sessions["s"].links = [1]
    driver = FleetDriver(target)
    driver.run(10)
    assert target.links_of("s") == [1]
    status = status_of_fleet(driver.fleet, driver.now)
    assert list(status.sessions[0].drafters) == ["d1"]


@given(
    width=st.integers(1, 20),
    lookahead=st.integers(1, 40),
    alternatives=st.integers(0, 3),
    accepts=st.floats(0.0, 1.0),
    token=st.floats(1e-5, 1.0),
    trip=st.floats(0.0, 1.0),
)
def test_no_plan_exceeds_the_limits(width, lookahead, alternatives, accepts, token, trip):
    config = CoordinatorConfig(
        plan=PlanSettings(max_width=width, max_lookahead=lookahead, max_alternatives=alternatives)
    )
    target = verifier("s")
    target.sessions["s"].accepts = accepts
    target.link(1, "d1", token=token, trip=trip)
    driver = FleetDriver(target, config=config)
    driver.run(4)
    plans = [order.plan.plan for order in target.orders if order.HasField("plan")]
    assert plans
    for plan in plans:
        assert plan.width <= width and plan.lookahead <= lookahead and plan.alternatives <= alternatives
        assert 1 <= plan.span_tokens and 0 <= plan.patience <= 10


def test_a_session_that_speculates_no_more_tries_again_now_and_then():
    target = verifier("s")
    target.sessions["s"].accepts = 0.02
    target.link(1, "d1", token=0.02, trip=0.1)
    driver = FleetDriver(target)
    driver.run(20)
    widths = [order.plan.plan.width for order in target.orders if order.HasField("plan")]
    changes = [(a, b) for a, b in pairwise(widths) if a != b]
    assert (0, 2) in changes and (2, 0) in changes
    assert widths.count(0) > len(widths) / 2
    # What it finds out counts: a drafter that has become good is used.
    target.sessions["s"].accepts = 0.9
    target.link(1, "d1", token=0.002, trip=0.002)
    driver.run(10)
    assert target.sessions["s"].plan.width > 2


def test_drafters_are_told_of_all_verifiers_once_until_that_changes():
    targets = [verifier(instance="v1"), verifier(instance="v2", address="10.0.0.2:50061")]
    drafter = FakeDrafter(attached_to=["elsewhere:1"])
    driver = FleetDriver(targets[1], drafter)
    driver.tick()
    assert not drafter.orders  # it has not said yet what it is attached to
    driver.run(2)
    driver.join(targets[0])
    driver.run(2)
    told = [list(order.attach.verifiers) for order in drafter.orders]
    assert told == [["10.0.0.2:50061", "elsewhere:1"], ["10.0.0.1:50061", "10.0.0.2:50061", "elsewhere:1"]]
    # A verifier that goes is still served until the stream to it ends.
    driver.silence(targets[0])
    driver.run(5)
    assert len(drafter.orders) == 2
    drafter.attached_to = ["10.0.0.2:50061"]
    driver.run(1)
    assert list(drafter.orders[-1].attach.verifiers) == ["10.0.0.2:50061"]


def test_a_restarted_coordinator_leaves_everything_as_it_is():
    target = verifier(*"abc")
    for number in (1, 2):
        target.link(number, f"d{number}")
    driver = FleetDriver(target)
    driver.run(8)
    seats = {name: list(session.links) for name, session in target.sessions.items()}
    drafter = FakeDrafter(attached_to=["10.0.0.1:50061"])
    fresh = FleetDriver(drafter)
    fresh.run(2)
    assert [list(order.attach.verifiers) for order in drafter.orders] == [["10.0.0.1:50061"]]
    fresh.join(target)
    fresh.run(8)
    assert {name: session.links for name, session in target.sessions.items()} == seats


# ---- what people see ----------------------------------------------------------------------------------------------


def test_status_tells_of_members_sessions_and_history():
    target = verifier("s", "alone")
    target.sessions["alone"].no_draft = True
    target.link(1, "d1")
    target.link(2, "")
    config = CoordinatorConfig(history=HistorySettings(samples=5, seconds=0.5))
    driver = FleetDriver(target, FakeDrafter("d1"), config=config)
    driver.run(10)
    status = status_of_fleet(driver.fleet, driver.now)
    assert [member.WhichOneof("kind") for member in status.members] == ["verifier", "drafter", "drafter"]
    assert status.uptime_seconds == 10
    drafted, alone = status.sessions
    assert list(drafted.drafters) == ["d1"] and not alone.drafters
    assert drafted.tokens_per_step > 2 and alone.tokens_per_step == 1
    assert alone.tokens_per_second == pytest.approx(40)
    assert len(drafted.acceptance_history) == 5 and not alone.acceptance_history
    assert drafted.acceptance_history[-1] == pytest.approx(drafted.acceptance_rate, abs=0.1)
    assert drafted.expected_speed_up > 1.5 and alone.expected_speed_up == 1
    assert not alone.HasField("round_trip") and not alone.HasField("acceptance_rate")
    known = next(member for member in status.members if member.instance == "d1")
    assert known.drafter.round_trip == 0.005 and known.drafter.HasField("acceptance_rate") and known.sessions == 1
    assert status.members[0].verifier.tokens_per_second > 80
    # It must fit on the wire.
    assert pb.StatusResponse.FromString(status.SerializeToString()) == status


def test_two_drafters_for_one_session_if_asked():
    target = verifier("s")
    for number in (1, 2, 3):
        target.link(number, f"d{number}")
    driver = FleetDriver(target, config=CoordinatorConfig(placement=PlacementSettings(drafters_per_session=2)))
    driver.run(5)
    assert len(target.links_of("s")) == 2
