"""What the fleet orders: who drafts for whom, how far, and whom drafters dial."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from coordinator.config import CoordinatorConfig, PlacementSettings, PlanLimitSettings
from coordinator.plan_orders import RESEND_SECONDS
from coordinator.status import status_of_fleet
from tests.support.fleet_members import FakeDrafter, FakeSession, FleetDriver, verifier


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
        plan=PlanLimitSettings(max_width=width, max_lookahead=lookahead, max_alternatives=alternatives)
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
        assert plan.span_tokens >= 1 and 0 <= plan.patience <= 10


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


def test_a_verifier_dialled_by_another_name_is_not_dialled_twice():
    target, drafter = verifier(), FakeDrafter("d1", attached_to=["gpu-box:50061"])
    target.link(1, "d1")
    driver = FleetDriver(target, drafter)
    driver.run(2)
    assert [list(order.attach.verifiers) for order in drafter.orders] == [["gpu-box:50061"]]


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


def test_two_drafters_for_one_session_if_asked():
    target = verifier("s")
    for number in (1, 2, 3):
        target.link(number, f"d{number}")
    driver = FleetDriver(target, config=CoordinatorConfig(placement=PlacementSettings(drafters_per_session=2)))
    driver.run(5)
    assert len(target.links_of("s")) == 2
