"""How often and how long a client tries again."""

from __future__ import annotations

import asyncio
import time

from speculation.errors import DivergedError, DragomanError, InputError, LimitExceededError, ProtocolError
from speculation.plural import count_of
from transport.backoff import Backoff


def may_help_later(error: DragomanError) -> bool:
    """Whether the same verifier, or one at its address, may do after a while what it could not."""
    passing = isinstance(error, LimitExceededError) or not isinstance(error, ProtocolError)
    return passing and not isinstance(error, (InputError, DivergedError))


class Retries:
    """Patience with verifiers that fail, which every new byte of text restores.

    ``attempts``: requests that may fail in a row, of those that count. ``patience``: seconds that may pass from the
    first failure on; 0: none is forgiven.
    """

    def __init__(self, *, attempts: int, patience: float) -> None:
        self._attempts = attempts
        self._patience = patience
        self._backoff = Backoff(longest=1.0)
        self._received = 0
        #: Requests that failed since the last new text.
        self.failures = 0
        self._counted = 0
        self._pauses = 0
        self._since: float | None = None

    def failed(self, error: DragomanError, received: int, *, counts: bool = True) -> None:
        """A request failed, with so many bytes of text received in all. Raises ``error`` if that was once too often.

        One that does not count only costs time.
        """
        if received > self._received:
            self._received, self.failures, self._counted, self._pauses, self._since = received, 0, 0, 0, None
        self.failures += 1
        self._counted += counts
        self._check(error)

    async def pause(self, error: DragomanError) -> None:
        """Wait before the next try, longer each time. Raises ``error`` if patience ends."""
        self._check(error)
        await asyncio.sleep(self._backoff.delay(self._pauses))
        self._pauses += 1

    def _check(self, error: DragomanError) -> None:
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        waited = now - self._since
        if self._counted > self._attempts or waited >= self._patience:
            message = f"{error.message}; gave up after {count_of(self.failures, 'failed request')} in {waited:.1f} s"
            if self._received:
                message += f", with {count_of(self._received, 'byte')} of text received"
            raise type(error)(message, remedy=error.remedy) from error
