"""Waiting for what the other side of a stream says, but not for ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import TypeVar

_T = TypeVar("_T")


async def unless_silent(reading: Awaitable[_T], seconds: float) -> _T | None:
    """What is read; None if nothing came in time.

    The TimeoutError ends here: it holds the timeout, which holds the task, which would hold an error that is raised
    from it, and this circle the connection, until Python looks for circles.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            return await reading
    return None
