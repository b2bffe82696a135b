"""Messages that wait together travel as one: each that is sent and received by itself takes an event loop some time.

With many sessions a pass of a drafter ends in a span for each branch of each, a step of a target in a verdict for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import ProtocolError

Message = TypeVar("Message", pb.AssistRequest, pb.AssistResponse)

#: In one, at most. A larger message than that travels by itself.
MOST_MESSAGES, MOST_BYTES = 128, 64 << 10


def bundled(messages: Sequence[Message], *, takes_several: bool) -> Iterator[Message]:
    """The same in their order, in as few as a peer takes."""
    if not takes_several or len(messages) == 1:
        yield from messages
        return
    together: list[Message] = []
    size = 0
    for message in messages:
        more = message.ByteSize()
        if together and (size + more > MOST_BYTES or len(together) == MOST_MESSAGES):
            yield _one(together)
            together, size = [], 0
        together.append(message)
        size += more
    yield _one(together)


def unbundled(message: Message) -> Iterable[Message]:
    """What came, one by one. Raises ProtocolError for more than one may hold, or one that holds others in turn."""
    if message.WhichOneof("message") != "several":
        return (message,)
    messages: Sequence[Message] = message.several.messages
    if len(messages) > MOST_MESSAGES:
        raise ProtocolError(f"{len(messages)} messages in one, {MOST_MESSAGES} at most")
    if any(each.WhichOneof("message") == "several" for each in messages):
        raise ProtocolError("a message of several holds others of several")
    return messages


def _one(messages: list[Message]) -> Message:
    if len(messages) == 1:
        return messages[0]
    whole = type(messages[0])()
    whole.several.messages.extend(messages)
    return whole
