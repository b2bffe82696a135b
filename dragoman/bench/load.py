"""When requests are sent: as fast as they are answered, or at random, whether others are answered or not."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from speculation.errors import InputError

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Load:
    """``request_rate``: per second; infinite: all are there at once. ``max_concurrency``: at once, at most; None: any
    number. ``burstiness``: shape of the gamma distribution of the times between arrivals; 1 is a Poisson process, below
    it they come in bursts, infinite is evenly. Equal seeds, equal arrivals.

    Raises InputError for any other.
    """

    request_rate: float = math.inf
    burstiness: float = 1.0
    max_concurrency: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.request_rate > 0:
            raise InputError("request-rate", self.request_rate, "is no rate", remedy="give requests per second, or inf")
        if not self.burstiness > 0:
            raise InputError("burstiness", self.burstiness, "is no shape", remedy="give a number above 0; 1 is Poisson")
        if self.max_concurrency is not None and self.max_concurrency < 1:
            remedy = "give 1 or more, or leave it out"
            raise InputError("max-concurrency", self.max_concurrency, "is no number of requests", remedy=remedy)

    def arrival_times(self, count: int) -> list[float]:
        """Seconds from the beginning, rising.

        As in vLLM they are stretched so that the last comes after ``count / request_rate`` seconds: then seeds differ
        in the order of long and short waits, and not in the mean rate.
        """
        if math.isinf(self.request_rate) or not count:
            return [0.0] * count
        mean = 1 / self.request_rate
        if math.isinf(self.burstiness):
            return [mean * (number + 1) for number in range(count)]
        chance = random.Random(self.seed)
        waits = [chance.gammavariate(self.burstiness, mean / self.burstiness) for _ in range(count)]
        times = list(itertools.accumulate(waits))
        stretch = mean * count / times[-1] if times[-1] else 1.0
        return [at * stretch for at in times]

    async def run(self, ask: Callable[[int], Awaitable[_T]], count: int) -> tuple[list[_T], float]:
        """``ask(number)`` for each of so many numbers: the answers in their order, and the seconds from first to last.
        Raises what ``ask`` raises."""
        places = contextlib.nullcontext() if self.max_concurrency is None else asyncio.Semaphore(self.max_concurrency)
        began = time.perf_counter()

        async def arrive(number: int, at: float) -> _T:
            await asyncio.sleep(began + at - time.perf_counter() if at else 0.0)
            async with places:
                return await ask(number)

        found = await asyncio.gather(*(arrive(number, at) for number, at in enumerate(self.arrival_times(count))))
        return found, time.perf_counter() - began
