"""How much of the gateway one caller may have at a time, so that others find room beside it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from speculation.errors import InputError, QuotaExceededError
from speculation.plural import count_of
from transport.identity import Identity


class Shares:
    """Counts the texts of each caller, those that wait included. ``most``: of one of them; 0: no bound."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._texts: Counter[Identity] = Counter()

    @contextlib.contextmanager
    def of(self, holder: Identity | None, texts: int) -> Iterator[None]:
        """So many more of its texts, for the length of the block. None, where nobody is asked who he is, has no bound.

        Raises QuotaExceededError if that are more than it may have now, InputError if they are more than ever.
        """
        if holder is None or self._most == 0:
            yield
            return
        if texts > self._most:
            remedy = "ask for fewer at a time"
            raise InputError("n", texts, f"a key may have {count_of(self._most, 'text')} at a time", remedy=remedy)
        if self._texts[holder] + texts > self._most:
            has = f"{count_of(self._texts[holder], 'text')} of at most {self._most} at a time"
            raise QuotaExceededError(f"{holder} has {has}, and asks for {texts} more", remedy="wait for one to end")
        self._texts[holder] += texts
        try:
            yield
        finally:
            self._texts[holder] -= texts
            if not self._texts[holder]:
                del self._texts[holder]
