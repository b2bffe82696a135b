"""The fleet as a state machine: who is in it, how long, and what people are told."""

from __future__ import annotations

import math

import pytest

from coordinator.config import CoordinatorConfig, HistorySettings
from coordinator.fleet import Fleet
from coordinator.status import status_of_fleet
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import InputError, LimitExceededError, QuotaExceededError, SessionError, VersionMismatchError
from tests.support.fleet_members import FakeDrafter, FakeVerifier, FleetDriver, verifier
from transport.identity import Identity, Role

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


def test_one_holder_leaves_room_for_others_and_takes_nobodys_place():
    fleet = Fleet(CoordinatorConfig(max_members_each=2), 0.0)
    anna, bert = Identity(Role.VERIFIER, "anna"), Identity(Role.VERIFIER, "bert")
    for instance in ("v1", "v2", "v1"):
        fleet.join(FakeVerifier(instance).registration(), 0.0, anna)
    with pytest.raises(QuotaExceededError, match="anna has 2 members already"):
        fleet.join(FakeVerifier("v3").registration(), 0.0, anna)
    fleet.join(FakeVerifier("v3").registration(), 0.0, bert)
    registered = list(fleet.registry)
    with pytest.raises(SessionError, match="'v1' is the instance of another verifier"):
        fleet.join(FakeVerifier("v1").registration(), 0.0, bert)
    drafter = FakeDrafter("v1").registration()
    with pytest.raises(SessionError, match="another verifier"):
        fleet.join(drafter, 0.0, anna)
    assert list(fleet.registry) == registered


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
