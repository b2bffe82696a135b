"""Server-sent events, as far as OpenAI's streams have them: one line of data each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

#: Of one event: no text is that long.
_MAX_BYTES: Final = 64 << 20
_DATA: Final = b"data:"


async def data_lines(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of each event as soon as its line is there, comments and other fields left out.

    Lines are cut at line feeds alone: what httpx counts as an end of line may stand within a JSON string. A line that
    never ends is cut off at 64 MiB.
    """
    rest = bytearray()
    async for part in parts:
        rest += part
        *lines, tail = rest.split(b"\n")
        rest = tail[-_MAX_BYTES:]
        for line in lines:
            if line.startswith(_DATA):
                yield bytes(line[len(_DATA) :].strip())
