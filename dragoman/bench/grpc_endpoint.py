"""A verifier, or a fleet, over gRPC."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

from dragoman.bench.endpoint import TextSettings
from dragoman.bench.measurement import BenchRequest, Measurement, Speculation
from dragoman.dialling import Destination
from speculation.protocol.generation import Chunk
from speculation.sampling.params import SamplingParams


class GrpcEndpoint:
    """See ``BenchEndpoint``. Raises InputError for addresses that are none, or that may not be dialled so."""

    backend = "dragoman"

    def __init__(self, destination: Destination, settings: TextSettings) -> None:
        self._destination = destination
        self._settings = settings

    async def __aenter__(self) -> Self:
        self._client = self._destination.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def describe(self) -> dict[str, Any]:
        """Of one verifier, in a fleet any. Raises what ``Client.describe`` raises."""
        status = await self._client.describe()
        return {
            "model_id": status.model,
            "dtype": status.dtype,
            "device": status.device,
            "version": status.version,
            "max_model_len": status.context_length,
            "drafters": [drafter.model for drafter in status.drafters],
        }

    async def ask(self, request: BenchRequest) -> Measurement:
        """Raises what ``Client.complete`` raises."""
        settings, arrivals = self._settings, list[float]()

        def note(chunk: Chunk) -> None:
            if chunk.data:
                arrivals.append(time.perf_counter() - started)

        started = time.perf_counter()
        completion = await self._client.complete(
            request.prompt,
            sampling=SamplingParams(temperature=settings.temperature, seed=request.seed),
            max_tokens=settings.max_tokens,
            ignore_end=settings.ignore_end,
            draft=request.draft,
            on_chunk=note,
        )
        return Measurement(
            request,
            started=started,
            arrivals=tuple(arrivals),
            e2el=time.perf_counter() - started,
            prompt_tokens=completion.prompt_tokens,
            output_tokens=completion.completion_tokens,
            text=completion.text,
            speculation=Speculation.from_json(completion.speculation_json()),
        )
