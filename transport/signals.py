"""Serving until the process is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from types import FrameType
from typing import Any


def end_as_first_process() -> None:
    """Make SIGTERM end this process where it is the first of a container, as it does elsewhere by itself.

    The kernel keeps from the first process of a namespace every signal that it has no handler for. Without one, a
    container that is stopped before it serves (a model is loading, say) would run until it is killed.
    """
    if os.getpid() == 1 and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end)


def _end(number: int, _: FrameType | None) -> None:
    """At once and without cleaning up, as by default: threads that download are not waited for."""
    os._exit(128 + number)


def stop_signal() -> asyncio.Event:
    """Set by SIGINT or SIGTERM. Within an event loop of the main thread; who is done calls ``drop_further_signals``."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


def drop_further_signals() -> None:
    """What the running loop has handlers for is from now on received and dropped, until the loop is closed.

    A loop that is closed shuts the pipe that signals are written to before it removes its handlers
    (asyncio.unix_events), so a second Ctrl-C, or a SIGTERM that follows it, would print a BrokenPipeError.
    """
    signal.set_wakeup_fd(-1)


async def until_signal(work: Coroutine[Any, Any, None]) -> None:
    """``work`` until it ends, or until SIGINT or SIGTERM cancel it, which is an orderly end. Raises what it raises."""
    running, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop_signal().wait())
    try:
        await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        running.cancel()
        await asyncio.gather(running, stopping, return_exceptions=True)
        drop_further_signals()
    if not running.cancelled():
        running.result()
