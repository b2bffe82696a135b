"""What `dragoman bench` asks for texts, whatever the protocol."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from dragoman.bench.measurement import BenchRequest, Measurement


@dataclass(frozen=True, slots=True)
class TextSettings:
    """What all texts have in common. ``ignore_end``: all of ``max_tokens``, also where a text has ended."""

    max_tokens: int
    temperature: float = 0.0
    ignore_end: bool = False


class BenchEndpoint(Protocol):
    """Use as an async context manager."""

    #: vLLM's word for the protocol, or our own.
    backend: str

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def describe(self) -> dict[str, Any]:
        """What is there: "model_id", and what else it tells. Raises DragomanError if no text could be had there."""

    async def ask(self, request: BenchRequest) -> Measurement:
        """Ask, and measure. Raises DragomanError if there is no whole answer."""
