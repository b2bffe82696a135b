"""Where figures go: counters, gauges and histograms of whichever system collects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

#: vLLM's label for which of a server's engines a figure is of. Here there is one.
ENGINE: Final = "0"

#: Adds to a counter, sets a gauge, or observes into a histogram; keywords are labels. From any thread.
Record = Callable[..., None]


class Instruments(Protocol):
    """Names are whole; a counter's ends in ``_total``."""

    def counter(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Record: ...

    def gauge(self, name: str, meaning: str) -> Record: ...

    def histogram(self, name: str, meaning: str, bounds: Sequence[float]) -> Record: ...


class NoInstruments:
    """Nobody collects."""

    def counter(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Record:
        return _ignore

    def gauge(self, name: str, meaning: str) -> Record:
        return _ignore

    def histogram(self, name: str, meaning: str, bounds: Sequence[float]) -> Record:
        return _ignore


def _ignore(value: float, **labels: str) -> None:
    """Nobody collects."""


class PrometheusInstruments:
    """Those of ``registry``, every one with vLLM's labels ``model_name`` and ``engine``, and ``replica``, the
    verifier's name."""

    def __init__(self, registry: CollectorRegistry, model_name: str, replica: str = "") -> None:
        self._registry = registry
        self._labels = {"model_name": model_name, "engine": ENGINE, "replica": replica}

    def counter(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Record:
        made = Counter(name, meaning, (*self._labels, *labels), registry=self._registry)
        if not labels:
            return made.labels(**self._labels).inc

        def add(value: float, **given: str) -> None:
            made.labels(**self._labels, **given).inc(value)

        return add

    def gauge(self, name: str, meaning: str) -> Record:
        return Gauge(name, meaning, self._labels, registry=self._registry).labels(**self._labels).set

    def histogram(self, name: str, meaning: str, bounds: Sequence[float]) -> Record:
        made = Histogram(name, meaning, self._labels, registry=self._registry, buckets=bounds)
        return made.labels(**self._labels).observe
