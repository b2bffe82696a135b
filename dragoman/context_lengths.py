"""How long the texts of a fleet's models may be, as their verifiers tell, without waiting for those that do not."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from speculation.errors import DragomanError

log = logging.getLogger(__name__)

#: Seconds in which a verifier is to answer: whoever asks for all models waits no longer for one of them.
ASK_SECONDS: Final = 1.5
#: Seconds for which one that did not is not asked again.
REST_SECONDS: Final = 10.0


class ContextLengths:
    """Asked once of a model: its verifiers agree. ``ask``: any of them, which may raise DragomanError."""

    def __init__(self, ask: Callable[[str], Awaitable[int]]) -> None:
        self._ask = ask
        self._known: dict[str, int] = {}
        self._rests: dict[str, float] = {}  # models of which nobody answered, until when they are not asked

    async def of(self, models: Iterable[str]) -> list[int | None]:
        """In tokens, in the order of the models; None where nobody answers."""
        return list(await asyncio.gather(*(self._of(model) for model in models)))

    async def _of(self, model: str) -> int | None:
        if model not in self._known and time.monotonic() >= self._rests.get(model, 0.0):
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    self._known[model] = await self._ask(model)
                self._rests.pop(model, None)
            except (DragomanError, TimeoutError) as error:
                self._rests[model] = time.monotonic() + REST_SECONDS
                why = error if isinstance(error, DragomanError) else f"no answer within {ASK_SECONDS:g} s"
                log.info("no context length of %s: %s", model, why)
        return self._known.get(model)
