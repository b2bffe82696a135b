"""When a drafter dials again."""

from __future__ import annotations

import contextlib

import pytest

from drafter_service.dialling import Dialling
from tests.support.service_drivers import drafting, eventually, serving
from tests.support.text_engine import TextEngine
from transport.backoff import Backoff

BACKOFF = Backoff(shortest=0.2, longest=0.4)


def test_attempts_begin_apart_and_one_that_took_longer_is_followed_at_once():
    dialling = Dialling(BACKOFF)
    dialling.begin(1.0)
    assert 0.15 < dialling.ended(1.001) < 0.25  # refused at once
    dialling.begin(2.0)
    assert dialling.ended(2.0 + 0.4 * 1.2) == 0.0  # its time was up
    dialling.begin(3.0)
    assert dialling.ended(3.001) > 0.15
    dialling.begin(4.0)
    dialling.lost()
    assert dialling.ended(4.001) == 0.0, "given up for the next one"
    dialling.begin(5.0)
    assert dialling.ended(5.001) > 0.15


def test_a_link_that_stood_is_followed_by_a_pause():
    dialling = Dialling(BACKOFF)
    dialling.begin(1.0)
    dialling.reached()
    assert 0.15 < dialling.ended(500.0) < 0.25


def test_failures_count_from_the_last_time_that_it_was_reached():
    dialling = Dialling(BACKOFF)
    for _ in range(5):
        dialling.begin(1.0)
        dialling.ended(2.0)
    assert dialling.failures == 5
    dialling.begin(3.0)
    dialling.reached()
    assert dialling.failures == 0
    dialling.ended(4.0)
    assert dialling.failures == 1


async def test_a_verifier_that_stops_in_order_is_said_to_have_stopped(caplog: pytest.LogCaptureFixture):
    """And not to have failed: what to look for in the drafter's log is a restart, not a fault of the network."""
    async with contextlib.AsyncExitStack() as longer:
        async with serving(TextEngine()) as (_, address):
            drafter = await longer.enter_async_context(drafting(address))
            await eventually(lambda: drafter.attached)
        await eventually(lambda: "dialling again" in caplog.text)
    said = [record.getMessage() for record in caplog.records if "dialling again" in record.getMessage()]
    assert said == [f"the verifier at {address} stopped; dialling again"]
