"""What the gateway counts, for Prometheus.

Tokens and latencies have names of our own, for all that vLLM has such figures: here they are those of a whole HTTP
request, whichever verifiers served it and however long it waited for its turn. The verifiers tell theirs under vLLM's
names, and a sum over all pages that are collected must count nothing twice. What no verifier knows, how many texts one
request asks for, has vLLM's name here.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.choices import ChoiceEnded, ChoiceEvent, ChoiceGrew
from speculation.protocol.completion import Completion
from transport.metric_buckets import CHOICES, FIRST_TOKEN, PER_TOKEN, REQUEST

_PREFIX: Final = "dragoman_gateway_"
#: What a client that left before its answer is counted as.
LEFT: Final = 499


class GatewayMetrics:
    """In a registry of its own."""

    def __init__(self, *, running: Callable[[], int], waiting: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter("requests_total", "Requests, by route and status.", "route", "status")
        self._broken = self._counter("streams_broken_total", "Answers that broke off after their first event.")
        self._gauge("texts_running", "Texts being written.", running)
        self._gauge("requests_waiting", "Requests that wait for their turn.", waiting)
        self._first = self._histogram(
            "time_to_first_token_seconds", "From the request to a text's first token.", FIRST_TOKEN
        )
        self._per_token = self._histogram(
            "time_per_output_token_seconds", "Of a text after its first chunk, for each token.", PER_TOKEN
        )
        self._whole = self._histogram(
            "e2e_request_latency_seconds", "From the request to the end of its last text.", REQUEST
        )
        self._prompt = self._counter("prompt_tokens_total", "Tokens of prompts.")
        self._generated = self._counter("generation_tokens_total", "Tokens of texts that were finished.")
        self._finished = self._counter("choices_finished_total", "Texts that were finished, by why.", "reason")
        self._choices = Histogram(
            "vllm:request_params_n",
            "Texts that a request asks for, of each prompt.",
            ("model_name",),
            registry=self._registry,
            buckets=CHOICES,
        )

    def page(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self._registry)

    def answered(self, route: str, status: int) -> None:
        """A request has its answer. ``route``: a path of the application, none of a client's."""
        self._requests.labels(route=route, status=str(status)).inc()

    def broken(self) -> None:
        """A stream, whose status had been told, ends with an error."""
        self._broken.inc()

    def asked(self, model: str, choices_each: int) -> None:
        """A request was taken for texts of a served model."""
        self._choices.labels(model_name=model).observe(choices_each)

    def first_token(self, seconds: float) -> None:
        """Of one text, from the request on."""
        self._first.observe(seconds)

    def finished(self, completion: Completion) -> None:
        """One text is whole."""
        self._generated.inc(completion.completion_tokens)
        self._finished.labels(reason=str(completion.finish_reason)).inc()
        if completion.tpot is not None:
            self._per_token.observe(completion.tpot)

    def whole(self, seconds: float, prompt_tokens: int) -> None:
        """All texts of a request are."""
        self._whole.observe(seconds)
        self._prompt.inc(prompt_tokens)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, meaning, labels, registry=self._registry)

    def _histogram(self, name: str, meaning: str, bounds: Sequence[float]) -> Histogram:
        return Histogram(_PREFIX + name, meaning, registry=self._registry, buckets=bounds)

    def _gauge(self, name: str, meaning: str, figure: Callable[[], int]) -> None:
        Gauge(_PREFIX + name, meaning, registry=self._registry).set_function(figure)


class RequestMeter:
    """The clock of one request, from when it is made. ``model``: a served one. ``choices_each``: texts of each of its
    prompts."""

    def __init__(self, metrics: GatewayMetrics, *, model: str, choices_each: int) -> None:
        self._metrics = metrics
        self._model = model
        self._choices_each = choices_each
        self._began = time.monotonic()
        self._started: set[int] = set()
        self._prompts: dict[int, int] = {}  # tokens of each

    async def counted(self, events: AsyncIterator[ChoiceEvent]) -> AsyncGenerator[ChoiceEvent, None]:
        """The same events, passed on, of a request that was let in."""
        self._metrics.asked(self._model, self._choices_each)
        async for event in events:
            match event:
                case ChoiceGrew() if event.index not in self._started:
                    self._started.add(event.index)
                    self._metrics.first_token(self._seconds)
                case ChoiceEnded():
                    self._metrics.finished(event.completion)
                    self._prompts[event.index // self._choices_each] = event.completion.prompt_tokens
            yield event
        self._metrics.whole(self._seconds, sum(self._prompts.values()))

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began


class CountRequests:
    """Tells the metrics of every request, whoever answers it."""

    def __init__(self, app: ASGIApp, *, metrics: GatewayMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = LEFT

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            self._metrics.answered(getattr(scope.get("route"), "path", "other"), status)
