"""What waits to be sent to a drafter; sending never waits, so that no drafter can hold a session up."""

from __future__ import annotations

import asyncio
from collections import deque

from protos.dragoman.v1 import dragoman_pb2 as pb

#: Kinds of messages that a drafter can do without: the next verdict's offset shows it the gap, and it resyncs.
#: A lost offer, end or part of a vocabulary would not be noticed by anyone.
_REPLACEABLE = frozenset(("verdict", "ping"))


class Outbox:
    """In order. When full, the oldest message that the drafter can do without goes."""

    MESSAGES = 256

    def __init__(self) -> None:
        self._messages: deque[pb.AssistResponse] = deque()
        self._filled = asyncio.Event()
        self._ended = False

    @property
    def full(self) -> bool:
        """Whether the drafter does not keep up: it should not be given more to do."""
        return len(self._messages) >= self.MESSAGES

    def send(self, message: pb.AssistResponse) -> None:
        """Queue a message."""
        if self.full:
            oldest = (i for i, other in enumerate(self._messages) if other.WhichOneof("message") in _REPLACEABLE)
            if (index := next(oldest, None)) is not None:
                del self._messages[index]
        self._messages.append(message)
        self._filled.set()

    def end(self) -> None:
        """Nothing comes after what waits."""
        self._ended = True
        self._filled.set()

    async def next_messages(self) -> list[pb.AssistResponse]:
        """All that wait, the oldest first, as soon as there is one; none after the last. For one reader."""
        while not self._messages:
            if self._ended:
                return []
            self._filled.clear()
            await self._filled.wait()
        waiting = list(self._messages)
        self._messages.clear()
        return waiting
