"""Which verifier a prompt goes to: pure ranking first, then the coordinator's answers to clients."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.routing import RoutedVerifier, ranked, share
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import InputError, LimitExceededError, NoVerifierError, VersionMismatchError
from speculation.protocol.messages import ChatMessage, Prompt
from speculation.protocol.prefix import HEAD_BYTES, prefix_digest
from tests.support.fleet_members import FakeSession, FakeVerifier, FleetDriver
from transport.limits import PROTOCOL_VERSION

PREFIXES = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=150)
BOUNDS = st.sampled_from([1.0, 1.25, 2.0])


def idle(count: int, capacity: int = 10_000) -> list[RoutedVerifier]:
    return [RoutedVerifier(f"10.0.0.{number}:50061", 0, capacity) for number in range(count)]


# ---- the ranking --------------------------------------------------------------------------------------------------


@given(prefixes=PREFIXES, count=st.integers(1, 9), bound=BOUNDS)
def test_no_replica_gets_more_than_its_share(prefixes: list[int], count: int, bound: float):
    loads = dict.fromkeys((replica.key for replica in idle(count)), 0)
    for sessions, prefix in enumerate(prefixes, start=1):
        replicas = [RoutedVerifier(key, load, 10_000) for key, load in loads.items()]
        best = ranked(prefix, replicas, bound=bound)
        assert {replica.key for replica in best} == set(loads), "the others follow, for those that find it gone"
        loads[best[0].key] += 1
        assert loads[best[0].key] <= math.ceil(bound * sessions / count)


@given(prefixes=PREFIXES, count=st.integers(2, 9), gone=st.integers(0, 8))
def test_where_a_replica_leaves_only_its_own_prefixes_move(prefixes: list[int], count: int, gone: int):
    replicas = idle(count)
    left = [replica for number, replica in enumerate(replicas) if number != gone % count]
    for prefix in prefixes:
        before = ranked(prefix, replicas, bound=1e6)
        after = ranked(prefix, left, bound=1e6)
        assert after == [replica for replica in before if replica in left]


@given(prefix=st.integers(0, 2**64 - 1), loads=st.lists(st.integers(0, 6), min_size=1, max_size=8), bound=BOUNDS)
def test_full_ones_are_left_out_and_crowded_ones_come_last(prefix: int, loads: list[int], bound: float):
    replicas = [RoutedVerifier(f"v{number}", load, 5) for number, load in enumerate(loads)]
    best = ranked(prefix, replicas, bound=bound)
    assert {replica.key for replica in best} == {replica.key for replica in replicas if replica.load < 5}
    if best:
        crowded = [replica.load + 1 > share(best, bound) for replica in best]
        assert not crowded[0] and crowded == sorted(crowded)


def test_prefixes_spread_over_the_replicas():
    replicas = idle(4)
    counts = dict.fromkeys((replica.key for replica in replicas), 0)
    for prefix in range(2000):
        counts[ranked(prefix, replicas, bound=1e6)[0].key] += 1
    assert all(400 < count < 600 for count in counts.values())


def test_the_digest_is_that_of_the_head():
    system = "You are terse. " * 40
    one, other, short = (
        Prompt(messages=(ChatMessage("system", words), ChatMessage("user", question)))
        for words, question in ((system, "How?"), (system, "Why?"), ("You are terse.", "Why?"))
    )
    assert len(system) > HEAD_BYTES
    assert prefix_digest(one) == prefix_digest(other) != prefix_digest(short)
    assert prefix_digest(Prompt(text="a")) != prefix_digest(Prompt(text="b"))
    assert prefix_digest(Prompt(text="x" * 300)) == prefix_digest(Prompt(text="x" * 400)) < 2**64


# ---- the coordinator ----------------------------------------------------------------------------------------------


def replica(number: int, *sessions: str, **kwargs) -> FakeVerifier:
    return FakeVerifier(
        f"v{number}", f"10.0.0.{number}:50061", {name: FakeSession(no_draft=True) for name in sessions}, **kwargs
    )


def asked(driver: FleetDriver, **kwargs) -> list[str]:
    """Instances, best first."""
    request = pb.RouteRequest(**{"protocol_version": PROTOCOL_VERSION, **kwargs})
    return [candidate.instance for candidate in driver.fleet.router.route(request, driver.now).candidates]


def test_equal_prefixes_go_to_one_replica_and_a_burst_is_spread():
    driver = FleetDriver(*(replica(number) for number in range(4)))
    driver.run(1)
    first = asked(driver, prefix_digest=7)
    assert sorted(first) == ["v0", "v1", "v2", "v3"]
    driver.run(1)  # nothing came of it, so nothing is left of it
    assert asked(driver, prefix_digest=7) == first
    driver.run(1)
    burst = [asked(driver, prefix_digest=7)[0] for _ in range(16)]
    assert [burst.count(instance) for instance in first] == [5, 5, 5, 1], "no report came in between"


def test_reported_sessions_are_load():
    busy, free = replica(1, "a", "b", "c"), replica(2)
    driver = FleetDriver(busy, free)
    for prefix in range(8):
        driver.run(1)
        assert asked(driver, prefix_digest=prefix) == ["v2", "v1"]


def test_what_is_asked_for_is_what_is_offered():
    driver = FleetDriver(
        replica(1, dtype="bfloat16"), replica(2, dtype="float32"), replica(3, dtype="float32", vocab_hash="other")
    )
    driver.run(1)
    assert asked(driver, dtype="float32", vocab_hash="hash", model="target") == ["v2"]
    assert sorted(asked(driver, dtype="float32")) == ["v2", "v3"]
    assert sorted(asked(driver, exclude=["v1", "gone"])) == ["v2", "v3"]
    with pytest.raises(NoVerifierError, match=r"target in float16.*registered are target \(bfloat16\)"):
        asked(driver, dtype="float16")
    with pytest.raises(NoVerifierError, match=r"no verifier serves gpt.*registered are"):
        asked(driver, model="gpt")
    with pytest.raises(NoVerifierError, match="excludes all that serve target: 3 verifiers"):
        asked(driver, exclude=["v1", "v2", "v3"])
    with pytest.raises(VersionMismatchError):
        asked(driver, protocol_version=99)


def test_several_models_must_be_told_apart():
    driver = FleetDriver(replica(1), replica(2, model="another"))
    driver.run(1)
    with pytest.raises(InputError, match="another, target"):
        asked(driver)
    assert asked(driver, model="another") == ["v2"]


def test_an_empty_fleet_and_a_full_one():
    driver = FleetDriver()
    with pytest.raises(NoVerifierError, match="no verifier is registered"):
        asked(driver)
    driver.join(replica(1, "a", "b", max_sessions=2))
    driver.run(1)
    with pytest.raises(LimitExceededError, match="full"):
        asked(driver)


def test_texts_that_were_asked_for_and_never_opened_leave_room_for_others():
    driver = FleetDriver(replica(1, "a", max_sessions=2), replica(2, max_sessions=2), replica(3, "b", max_sessions=1))
    driver.run(1)
    found = [asked(driver, prefix_digest=7) for _ in range(50)]
    assert all(sorted(offered) == ["v1", "v2"] for offered in found), "the third one is full"
    assert {offered[0] for offered in found} == {"v1", "v2"}


# ---- draining -----------------------------------------------------------------------------------------------------


def decide(driver: FleetDriver, verifier: str, **kwargs) -> pb.DrainResponse:
    request = pb.DrainRequest(protocol_version=PROTOCOL_VERSION, verifier=verifier, **kwargs)
    return driver.fleet.drains.decide(request)


def drain_orders(verifier: FakeVerifier) -> list[tuple[bool, bool]]:
    orders = [order.drain for order in verifier.orders if order.HasField("drain")]
    return [(order.draining, order.hand_over) for order in orders]


@pytest.mark.parametrize("by", ["v1", "name of v1", "10.0.0.1:50061"])
def test_a_draining_verifier_is_never_offered(by: str):
    one, other = replica(1, "a"), replica(2)
    driver = FleetDriver(one, other)
    driver.run(1)
    response = decide(driver, by)
    assert (response.instance, response.sessions, response.draining) == ("v1", 1, True)
    assert asked(driver) == ["v2"], "before any report"
    driver.run(3)
    assert drain_orders(one) == [(True, False)], "obeyed at once, so said once"
    assert list(one.sessions) == ["a"] and not drain_orders(other)
    assert not decide(driver, by, undo=True).draining, "what was decided, not what is still so"
    driver.run(1)
    assert sorted(asked(driver)) == ["v1", "v2"] and not one.draining


def test_hand_over_after_a_drain_and_repeats_until_it_is_done():
    one = replica(1, "a")
    driver = FleetDriver(one)
    driver.run(1)
    decide(driver, "v1")
    driver.run(1)
    one.obeys = False
    decide(driver, "v1", hand_over=True)
    driver.run(2.5)
    assert drain_orders(one)[1:] == [(True, True)] * 3
    one.obeys = True
    driver.run(4)
    assert len(drain_orders(one)) == 5 and not one.sessions
    with pytest.raises(LimitExceededError, match="of target at 1 verifier: 1 draining, 0 full"):
        asked(driver)


def test_a_drain_outlives_a_broken_stream_and_a_lost_coordinator():
    one = replica(1)
    driver = FleetDriver(one, replica(2))
    driver.run(1)
    decide(driver, "v1")
    driver.run(1)
    driver.join(one)  # it registers again
    assert asked(driver) == ["v2"]
    successor = FleetDriver(one, replica(2))
    successor.run(1)
    assert asked(successor) == ["v2"], "the verifier says so itself"


def test_who_is_to_drain_must_be_clear():
    one, other = replica(1), replica(2)
    driver = FleetDriver(one, other)
    with pytest.raises(InputError, match=r"nobody.*registered are name of v1, name of v2"):
        decide(driver, "nobody")
    with pytest.raises(InputError, match="undo"):
        decide(driver, "v1", undo=True, hand_over=True)
    for member in driver.fleet.registry:
        member.name = "same"
    with pytest.raises(InputError, match=r"2 verifiers.*v1 at 10.0.0.1:50061, v2"):
        decide(driver, "same")
