"""How long to wait before a service is dialled again."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds to wait before dialling again: grows by ``factor`` up to ``longest``, with 20 % jitter."""

    shortest: float = 0.2
    longest: float = 0.4
    factor: float = 1.3

    def delay(self, failures: int) -> float:
        # An outage of an hour is thousands of failures: more than a power of a float can stand.
        return min(self.longest, self.shortest * self.factor ** min(failures, 64)) * random.uniform(0.8, 1.2)
