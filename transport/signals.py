"""Serving until the process is told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any


def stop_signal() -> asyncio.Event:
    """Set by SIGINT or SIGTERM. Within an event loop of the main thread."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


async def until_signal(work: Coroutine[Any, Any, None]) -> None:
    """``work`` until it ends, or until SIGINT or SIGTERM cancel it, which is an orderly end. Raises what it raises."""
    running, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop_signal().wait())
    try:
        await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        running.cancel()
        await asyncio.gather(running, stopping, return_exceptions=True)
    if not running.cancelled():
        running.result()
