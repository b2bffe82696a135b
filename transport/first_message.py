"""The first message of a peer's stream, which says who it is: awaited for so long, and no other than that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from google.protobuf.message import Message

from speculation.errors import ProtocolError, SessionError

_M = TypeVar("_M", bound=Message)


async def first_message(requests: AsyncIterator[_M], field: str, *, seconds: float, refusal: str) -> _M:
    """The one that has ``field``. Raises ProtocolError, with the words ``refusal``, if another one or none comes, and
    SessionError if nothing comes for so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            first = await anext(requests, None)
    except TimeoutError:
        # Not the error of a refusal: a peer that was held up may try again.
        raise SessionError(f"no {field} within {seconds:g} s") from None
    if first is None or not first.HasField(field):
        raise ProtocolError(refusal)
    return first
