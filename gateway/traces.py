"""A span for each request that asks for texts: whose trace it belongs to, what was asked, what came of it."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.choices import ChoiceEnded, ChoiceEvent, ChoiceGrew
from gateway.metrics import LEFT
from gateway.order import Order
from speculation.errors import InputError, LimitExceededError
from speculation.protocol.completion import Completion
from transport.gen_ai import Operation, request_attributes
from transport.trace_context import trace_context_of
from transport.tracing import NO_SPAN, Attribute, current_span, start_span, using

#: Those that texts are asked for at.
ROUTES: Final = frozenset({"/v1/completions", "/v1/chat/completions", "/v1/responses"})
#: Of a text whose client left, as the verifiers call it.
_ABORT: Final = "abort"
_FAILURE: Final = 500


class TraceRequests:
    """Goes on with the trace of the request's ``traceparent``, or begins one; what the application does for the
    request belongs to the span."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in ROUTES:
            await self._app(scope, receive, send)
            return
        route = scope["path"]
        span = start_span(
            f"POST {route}",
            parent=trace_context_of(scope["headers"]),
            attributes={"http.request.method": "POST", "http.route": route, "url.path": route},
        )
        if span is NO_SPAN:
            await self._app(scope, receive, send)
            return
        status = LEFT

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with using(span):
                await self._app(scope, receive, noting)
        finally:
            span.set({"http.response.status_code": status})
            if status >= _FAILURE:
                span.fail(str(status))
            span.end()


class TextsTrace:
    """What the current span is told of the texts of ``order``, from when it is made."""

    def __init__(self, order: Order) -> None:
        self._span = current_span()
        self._order = order
        self._began = time.monotonic()
        self._first: float | None = None
        self._completions: dict[int, Completion] = {}
        if self._span.recording:
            self._asked()

    def _asked(self) -> None:
        order, first = self._order, self._order.requests[0]
        operation = Operation.CHAT if first.prompt.messages else Operation.TEXT_COMPLETION
        attributes = request_attributes(first, operation=operation, model=order.model.name)
        attributes["gen_ai.request.stream"] = order.stream
        if order.choices_each != 1:
            attributes["gen_ai.request.choice.count"] = order.choices_each
        self._span.rename(f"{operation.value} {order.model.name}")
        self._span.set(attributes)

    async def told(self, events: AsyncIterator[ChoiceEvent]) -> AsyncGenerator[ChoiceEvent, None]:
        """The same events, passed on."""
        if not self._span.recording:
            async for event in events:
                yield event
            return
        try:
            async for event in events:
                self._note(event)
                yield event
        except Exception as error:
            self._failed(error)
            raise
        finally:
            self._ended()

    def _note(self, event: ChoiceEvent) -> None:
        match event:
            case ChoiceGrew() if self._first is None:
                self._first = time.monotonic() - self._began
            case ChoiceEnded():
                self._completions[event.index] = event.completion

    def _failed(self, error: Exception) -> None:
        """Its words may quote the request, so its class alone is told."""
        kind = type(error).__name__
        if isinstance(error, InputError | LimitExceededError):  # the caller's
            self._span.set({"error.type": kind})
        else:
            self._span.fail(kind)  # of a stream that had begun, too, whose status says nothing of it

    def _ended(self) -> None:
        order, done = self._order, self._completions
        prompts = {index // order.choices_each: each.prompt_tokens for index, each in done.items()}
        reasons = [str(done[index].finish_reason) if index in done else _ABORT for index in range(len(order.requests))]
        attributes: dict[str, Attribute] = {
            "gen_ai.response.model": order.model.name,
            "gen_ai.response.finish_reasons": reasons,
            "gen_ai.usage.input_tokens": sum(prompts.values()),
            "gen_ai.usage.output_tokens": sum(each.completion_tokens for each in done.values()),
            "dragoman.resumes": sum(each.resumes for each in done.values()),
        }
        if self._first is not None:
            attributes["gen_ai.response.time_to_first_chunk"] = self._first
        self._span.set(attributes)
