"""What many want to know of the fleet at once, asked for by one of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from speculation.errors import DragomanError, NoVerifierError

#: Seconds in which there must be an answer.
PATIENCE: Final = 5.0
_T = TypeVar("_T")


class SharedAnswer(Generic[_T]):
    """Of ``ask``, not asked again for ``fresh`` seconds.

    All who want to know while it is asked wait for the same answer. A failure counts for as long as it took to come, at
    most as long as an answer does: while a fleet is away, requests do not wait one after the other for it, and what is
    told at once (the model is still being loaded) may be over in a moment.
    """

    def __init__(self, ask: Callable[[], Awaitable[_T]], *, fresh: float) -> None:
        self._ask, self._fresh = ask, fresh
        self._asking: asyncio.Task[None] | None = None
        self._answer: _T | DragomanError | None = None
        self._counts_until = self._answered = -float("inf")

    def latest(self, within: float) -> _T | None:
        """What was answered last, if that is at most ``within`` seconds ago; None otherwise, or after a failure.

        Nobody waits: what does not count any more is asked for meanwhile.
        """
        now = time.monotonic()
        if now - self._answered > within or self._answer is None or isinstance(self._answer, DragomanError):
            return None
        if now >= self._counts_until:
            self._ask_again()
        return self._answer

    async def __call__(self) -> _T:
        """Raises what ``ask`` raises of our errors, NoVerifierError if there is no answer in time."""
        if time.monotonic() >= self._counts_until:
            await asyncio.shield(self._ask_again())  # who leaves takes the answer from nobody
        answer = self._answer
        assert answer is not None
        if isinstance(answer, DragomanError):
            raise answer.with_traceback(None)  # of those who were told before
        return answer

    def _ask_again(self) -> asyncio.Task[None]:
        if self._asking is None:
            self._asking = asyncio.create_task(self._renew())
        return self._asking

    async def _renew(self) -> None:
        began = time.monotonic()
        try:
            self._answer = await self._in_time()
            counts = self._fresh
        except DragomanError as error:
            self._answer = error
            counts = min(time.monotonic() - began, self._fresh)
        finally:
            self._asking = None
        self._answered = time.monotonic()
        self._counts_until = self._answered + counts

    async def _in_time(self) -> _T:
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._ask()
        except TimeoutError:
            raise NoVerifierError(f"no answer within {PATIENCE:g} s") from None
