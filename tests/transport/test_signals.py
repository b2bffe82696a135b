"""Serving until a signal: an orderly end, and what ends otherwise says so."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.repository import ROOT
from transport.signals import stop_signal, until_signal

_LOADING = "import time; from transport.signals import end_as_first_process; {}print('up', flush=True); time.sleep(60)"


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


async def test_a_second_signal_is_heard_by_who_asks_for_it_again():
    stop = stop_signal()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.wait(), 30)
        stop.clear()


async def test_a_second_signal_is_dropped_while_the_loop_is_closed():
    """The loop's pipe is closed before its handlers are removed: what is written to it then is an error on stderr."""
    await asyncio.wait_for(until_signal(_told(signal.SIGINT)), 30)
    os.kill(os.getpid(), signal.SIGTERM)
    assert signal.set_wakeup_fd(-1) == -1


async def _told(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    await asyncio.Event().wait()


@pytest.mark.process
@pytest.mark.parametrize("asked", [True, False])
def test_the_first_process_of_a_container_hears_sigterm_before_it_serves(asked: bool):
    """And not without asking for it: the kernel keeps the signal from it."""
    code = _LOADING.format("end_as_first_process(); " if asked else "")
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as outer:
        assert outer.stdout is not None and outer.stderr is not None
        if outer.stdout.readline() != "up\n":
            pytest.skip(f"no namespace of processes here: {outer.stderr.read().strip()}")
        [first] = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        os.kill(int(first), signal.SIGTERM)
        if not asked:
            os.kill(int(first), signal.SIGKILL)
        assert (outer.wait(30) == 128 + signal.SIGTERM) is asked
