"""Asking an endpoint for all texts of a benchmark, and keeping what was measured, also of one that is broken off."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from dragoman.bench.endpoint import BenchEndpoint
from dragoman.bench.load import Load
from dragoman.bench.measurement import BenchRequest, Measurement
from speculation.errors import DragomanError, InputError


class BenchSession:
    """``on_done``: told how many of how many answers are there, for a progress bar.

    ``compare``: each request twice, with drafters and without, one right after the other and in turns the one or the
    other first, so that a machine that gets slower or faster is fair to both.
    """

    def __init__(
        self,
        endpoint: BenchEndpoint,
        requests: Sequence[BenchRequest],
        load: Load,
        *,
        compare: bool = False,
        on_done: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self._endpoint = endpoint
        self._requests = requests
        self._load = load
        self._compare = compare
        self._on_done = on_done
        self._began: float | None = None
        self._seconds: float | None = None
        #: What was asked and came, or failed, so far.
        self.measured: list[Measurement] = []

    @property
    def total(self) -> int:
        """Texts in all."""
        return len(self._requests) * (2 if self._compare else 1)

    @property
    def seconds(self) -> float:
        """That measuring took, or takes until now; 0 before it began."""
        if self._began is None:
            return 0.0
        return self._seconds if self._seconds is not None else time.perf_counter() - self._began

    async def warm_up(self, count: int) -> None:
        """The first request so many times, as many at once as later. Raises what one of them fails with, and for
        ``compare`` InputError if the endpoint does not know how to leave drafters out."""
        first = replace(self._requests[0], draft=not self._compare)

        async def ask(number: int) -> Measurement:
            return await self._endpoint.ask(first)

        load = Load(max_concurrency=self._load.max_concurrency)
        answers, _ = await load.run(ask, max(count, 1) if self._compare else count)
        if self._compare and any(one.speculation is None for one in answers):
            problem = "needs an endpoint that knows the field `draft`, and tells what drafts did"
            raise InputError("compare", "no-draft", problem, remedy="measure a Dragoman gateway, verifier or fleet")

    async def run(self) -> None:
        """All requests. One that fails is kept with its error, and the others go on."""
        self._began = time.perf_counter()
        _, self._seconds = await self._load.run(self._pair if self._compare else self._single, len(self._requests))

    async def _single(self, number: int) -> None:
        await self._measure(self._requests[number])

    async def _pair(self, number: int) -> None:
        for draft in (False, True) if number % 2 else (True, False):
            await self._measure(replace(self._requests[number], draft=draft))

    async def _measure(self, request: BenchRequest) -> None:
        started = time.perf_counter()
        try:
            measured = await self._endpoint.ask(request)
        except DragomanError as error:
            measured = Measurement(request, started=started, e2el=time.perf_counter() - started, error=str(error))
        self.measured.append(measured)
        self._on_done(len(self.measured), self.total)
