"""When a drafter dials again, and how long it gives an attempt."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from benchmarks.fault_proxy import FaultProxy, LinkConditions
from drafter_service import client
from drafter_service.dialling import SHORTEST_ATTEMPT, Dialling
from tests.support.service_drivers import drafters, drafting, eventually, serving
from tests.support.text_engine import TextEngine
from transport.address import Address
from transport.backoff import Backoff
from transport.channels import open_channel
from transport.grpc_options import CONNECT_SECONDS

BACKOFF = Backoff(shortest=0.2, longest=0.4)


def reached_after(seconds: float) -> Dialling:
    dialling = Dialling(BACKOFF)
    dialling.begin(10.0)
    dialling.reached(10.0 + seconds)
    dialling.ended(100.0)
    return dialling


def test_an_unknown_verifier_has_all_the_time_whatever_failed_before():
    dialling = Dialling(BACKOFF)
    for attempt in range(9):
        assert dialling.begin(float(attempt)) == CONNECT_SECONDS
        dialling.ended(attempt + 0.5)


@pytest.mark.parametrize(
    ("took", "seconds"), [(0.01, SHORTEST_ATTEMPT), (0.2, 0.4), (0.6, 1.2), (0.9, 1.8), (7.0, CONNECT_SECONDS)]
)
def test_one_that_was_reached_has_twice_what_that_took(took: float, seconds: float):
    assert reached_after(took).begin(200.0) == pytest.approx(seconds)


def test_now_and_then_an_attempt_is_a_patient_one_as_the_way_may_be_longer_now():
    dialling, given = reached_after(0.01), []
    for attempt in range(40):
        given.append(dialling.begin(200.0 + attempt))
        dialling.ended(200.5 + attempt)
    patient = [number for number, seconds in enumerate(given) if seconds == CONNECT_SECONDS]
    assert patient == [2, 14, 30], "the first of these is the second since it was reached"
    assert all(seconds == SHORTEST_ATTEMPT for number, seconds in enumerate(given) if number not in patient)


def test_attempts_begin_apart_and_one_that_took_longer_is_followed_at_once():
    dialling = Dialling(BACKOFF)
    dialling.begin(1.0)
    assert 0.15 < dialling.ended(1.001) < 0.25  # refused at once
    dialling.begin(2.0)
    assert dialling.ended(2.0 + 0.4 * 1.2) == 0.0  # its time was up


def test_a_link_that_stood_is_followed_by_a_pause():
    dialling = Dialling(BACKOFF)
    dialling.begin(1.0)
    dialling.reached(1.1)
    assert 0.15 < dialling.ended(500.0) < 0.25


def test_failures_count_from_the_last_time_that_it_was_reached():
    dialling = Dialling(BACKOFF)
    for _ in range(5):
        dialling.begin(1.0)
        dialling.ended(2.0)
    assert dialling.failures == 5
    dialling.begin(3.0)
    dialling.reached(3.1)
    assert dialling.failures == 0
    dialling.ended(4.0)
    assert dialling.failures == 1


async def test_a_drafter_gives_a_verifier_that_it_reached_before_less_time(monkeypatch: pytest.MonkeyPatch):
    given: list[float] = []

    def noted(*arguments: Any, connect_seconds: float, **options: Any) -> grpc.aio.Channel:
        given.append(connect_seconds)
        return open_channel(*arguments, connect_seconds=connect_seconds, **options)

    monkeypatch.setattr(client, "open_channel", noted)
    monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=lambda: 7.0))  # it is reached at once
    async with (
        serving(TextEngine()) as (verifier, address),
        FaultProxy(address.host, address.port, LinkConditions(0.0)) as proxy,
        drafting(Address.parse(proxy.address, field="verifier")) as drafter,
    ):
        await eventually(lambda: drafter.attached)
        attempts = len(given)
        proxy.reset()
        await eventually(lambda: len(given) > attempts)
        await drafters(verifier, 1)
    assert set(given[:attempts]) == {CONNECT_SECONDS}
    assert given[attempts] == SHORTEST_ATTEMPT


async def test_a_verifier_that_stops_in_order_is_said_to_have_stopped(caplog: pytest.LogCaptureFixture):
    """And not to have failed: what to look for in the drafter's log is a restart, not a fault of the network."""
    async with contextlib.AsyncExitStack() as longer:
        async with serving(TextEngine()) as (_, address):
            drafter = await longer.enter_async_context(drafting(address))
            await eventually(lambda: drafter.attached)
        await eventually(lambda: "dialling again" in caplog.text)
    said = [record.getMessage() for record in caplog.records if "dialling again" in record.getMessage()]
    assert said == [f"the verifier at {address} stopped; dialling again"]
