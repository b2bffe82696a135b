"""Clients that ask one verifier: so many at once, each with the next prompt, or arriving at random."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from benchmarks.figures import Served
from dragoman.bench.load import Load as Traffic
from dragoman.client import Client
from dragoman.transcript import TextOptions, Transcript, generation_request
from speculation.errors import InputError
from speculation.protocol.generation import Chunk, Started
from speculation.protocol.messages import Prompt
from speculation.sampling.params import SamplingParams
from speculation.text.text_stream import TextRun

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Load:
    """``concurrency`` clients, each with the next prompt when it has its answer; or, with a ``rate``, so many requests
    a second at random (Poisson), whether others are answered or not.

    Raises InputError for any other.
    """

    concurrency: int = 1
    rate: float = 0.0

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise InputError("concurrency", self.concurrency, "is no number of clients", remedy="give 1 or more")
        if not 0 <= self.rate < float("inf"):
            raise InputError("rate", self.rate, "is no rate", remedy="give requests per second, above 0")

    @property
    def name(self) -> str:
        """As people read it."""
        return f"{self.rate:g}/s" if self.rate else f"{self.concurrency}"

    async def run(self, ask: Callable[[int], Awaitable[_T]], count: int) -> tuple[list[_T], float]:
        """``ask(number)`` for each of so many numbers: the answers in their order, and the seconds from first to last.

        Arrivals are the same in every run.
        """
        load = Traffic(request_rate=self.rate, seed=1) if self.rate else Traffic(max_concurrency=self.concurrency)
        return await load.run(ask, count)


class Asking:
    """The same prompts again and again: request ``number`` has prompt and seed of that number every time.

    ``ignore_end``: all of ``max_tokens``, also where a text has ended. ``salt``: of the requests, so that none is
    drafted from what another arm has written.
    """

    def __init__(
        self,
        client: Client,
        prompts: list[Prompt],
        *,
        temperature: float,
        max_tokens: int,
        ignore_end: bool = False,
        salt: str = "",
    ) -> None:
        self._client = client
        self._salt = salt
        self._prompts = prompts
        self._temperature = temperature
        self._max_tokens = max_tokens
        self._ignore_end = ignore_end

    def _options(self, number: int, *, draft: bool) -> TextOptions:
        return {
            "sampling": SamplingParams(temperature=self._temperature, seed=number),
            "max_tokens": self._max_tokens,
            "ignore_end": self._ignore_end,
            "draft": draft,
            "cache_salt": self._salt,
        }

    async def ask(self, number: int, *, draft: bool) -> Served:
        """``draft`` False: the target alone, without a look into its own text."""
        arrivals: list[float] = []
        completion = await self._client.complete(
            self._prompts[number],
            on_chunk=lambda chunk: arrivals.append(time.perf_counter()),
            **self._options(number, draft=draft),
        )
        return Served(completion, arrivals)

    async def resume(self, number: int, received: bytes, *, draft: bool) -> Served:
        """As if the connection had broken after ``received``; the answer is the whole text all the same.

        Raises DivergedError if these bytes do not begin the verifier's own text.
        """
        writer = await self._client.describe()
        transcript = Transcript(
            generation_request(self._prompts[number], **self._options(number, draft=draft)), lambda chunk: None
        )
        transcript.take(Started("", 0, model=writer.model, vocab_hash=writer.vocab_hash, dtype=writer.dtype))
        transcript.take(Chunk((TextRun(received, drafted=False),), ()))
        return Served(await self._client.follow(transcript))
