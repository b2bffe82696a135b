"""Serving until a signal: an orderly end, and what ends otherwise says so."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from transport.signals import stop_signal, until_signal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_cancels_the_work_and_waits_for_its_end(number: signal.Signals):
    ended = []

    async def work() -> None:
        os.kill(os.getpid(), number)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            ended.append(True)

    await asyncio.wait_for(until_signal(work()), 30)
    assert ended == [True]


async def test_work_that_ends_or_fails_by_itself_is_not_waited_for():
    async def fail() -> None:
        raise ValueError("by itself")

    await asyncio.wait_for(until_signal(asyncio.sleep(0)), 30)
    with pytest.raises(ValueError, match="by itself"):
        await asyncio.wait_for(until_signal(fail()), 30)


async def test_the_event_is_set_once_for_all_who_wait():
    stop = stop_signal()
    waiting = [asyncio.create_task(stop.wait()) for _ in range(2)]
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(asyncio.gather(*waiting), 30)
    assert stop.is_set()
