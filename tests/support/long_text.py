"""A text that is long enough for something to happen in the middle of it: what is asked, what must come, and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dragoman import Chunk, Client, Completion
from speculation.protocol.messages import Prompt
from speculation.sampling.params import SamplingParams
from tests.support.service_drivers import serving
from tests.support.text_engine import TextEngine

SAMPLING = SamplingParams(temperature=0.8, seed=9)
PROMPT = Prompt(text="a story: ")
ASK: dict[str, Any] = {"sampling": SAMPLING, "max_tokens": 120, "ignore_end": True}


async def expected() -> Completion:
    """The text as one verifier writes it that nothing happens to."""
    async with serving(TextEngine()) as (_, address), Client(address) as client:
        return await client.complete(PROMPT, **ASK)


def at_chunk(number: int, act: Callable[[], object]) -> tuple[list[Chunk], Callable[[Chunk], None]]:
    """The chunks so far, and a watcher that acts at the given one."""
    chunks: list[Chunk] = []

    def watch(chunk: Chunk) -> None:
        chunks.append(chunk)
        if len(chunks) == number:
            act()

    return chunks, watch
