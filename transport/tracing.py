"""Spans of requests for OpenTelemetry, where a service was told to record them; otherwise next to nothing is done.

OpenTelemetry is an extra and is imported only once tracing is turned on (``span_export.py``). No span holds a prompt, a
text, a draft, a seed or the words of an error, which may quote a request.
"""

from __future__ import annotations

import contextlib
import contextvars
import enum
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from speculation.errors import InputError
from transport.trace_context import NO_TRACE, TraceContext, checked

log = logging.getLogger(__name__)

Attribute = str | bool | int | float | Sequence[str] | Sequence[int]
#: By their names in OpenTelemetry's conventions, or, of our own, beginning with ``dragoman.``
Attributes = Mapping[str, Attribute]

#: Seconds in which what was recorded goes to the collector when a service stops.
FLUSH_SECONDS: Final = 2.0
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_EXPORTER: Final = "OTEL_TRACES_EXPORTER"
_EXPORTERS: Final = ("otlp", "console")
_REMEDY: Final = "pip install 'dragoman[otel]'"


class SpanKind(enum.Enum):
    """How a span is related to its parent: it answers a call, or works on what it was sent."""

    SERVER = "server"
    CONSUMER = "consumer"


class Span:
    """One that is not recorded. ``context``: of what belongs to it; here that of its caller, which is passed on."""

    __slots__ = ("context",)

    #: Whether anybody will see what it is told: what costs something to find out need not be found out otherwise.
    recording = False

    def __init__(self, context: TraceContext = NO_TRACE) -> None:
        self.context = context

    def rename(self, name: str) -> None:
        """Now that more is known of it."""

    def set(self, attributes: Attributes) -> None:
        """In place of those of the same names."""

    def event(self, name: str, attributes: Attributes, *, at: float | None = None) -> None:
        """``at``: when, by ``time.perf_counter``; None: now."""

    def fail(self, kind: str) -> None:
        """``kind``: of error, a class or a code, never its words."""

    def end(self) -> None:
        """Idempotent."""


NO_SPAN: Final = Span()


class Tracer(Protocol):
    """Records spans."""

    def start(self, name: str, *, kind: SpanKind, parent: TraceContext, attributes: Attributes) -> Span:
        """A span from now on; without a parent it begins a trace."""
        ...

    def stop(self, seconds: float) -> None:
        """Hand over what was recorded, and give up after so many seconds."""
        ...


_tracer: Tracer | None = None
_CURRENT: Final[contextvars.ContextVar[Span]] = contextvars.ContextVar("span", default=NO_SPAN)


def start_span(
    name: str,
    *,
    kind: SpanKind = SpanKind.SERVER,
    parent: TraceContext = NO_TRACE,
    attributes: Attributes | None = None,
) -> Span:
    """A span from now on, until its ``end``."""
    if _tracer is not None:
        return _tracer.start(name, kind=kind, parent=parent, attributes=attributes or {})
    return Span(parent) if parent else NO_SPAN


def current_span() -> Span:
    """Of the request that this runs for."""
    return _CURRENT.get()


@contextlib.contextmanager
def using(span: Span) -> Iterator[None]:
    """Within the block, and in tasks that begin there, it is the current one."""
    token = _CURRENT.set(span)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def outgoing() -> TraceContext:
    """What calls are to carry on: the current span's, or that of the program which asks, if it uses OpenTelemetry."""
    context, api = _CURRENT.get().context, sys.modules.get("opentelemetry.trace")
    return context if context or api is None else _of_program(api)


def _of_program(api: Any) -> TraceContext:
    found = api.get_current_span().get_span_context()
    if not found.is_valid:
        return NO_TRACE
    traceparent = f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"
    return checked(traceparent, found.trace_state.to_header())


# ---- turning it on --------------------------------------------------------------------------------------------------


def start_tracing(role: str, endpoint: str | None = None) -> bool:
    """Record spans from now on, if ``endpoint`` or OpenTelemetry's variables ask for it; whether they are. A process
    that records some already goes on as it does.

    ``role``: gateway, verifier or drafter. ``endpoint``: URL of a collector; in the environment it is
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT. Raises InputError if an explicit endpoint cannot be used; what only the
    environment asks for, and cannot be had, is said in the log, and the service does without.
    """
    global _tracer
    if endpoint is not None and not endpoint.startswith(("http://", "https://")):
        raise InputError("otlp-traces-endpoint", endpoint, "is no URL", remedy="http://collector:4317, say")
    if _tracer is not None or (exporter := _exporter(endpoint)) is None:
        return _tracer is not None
    try:
        _tracer = _new_tracer(role, exporter, endpoint)
    except InputError as error:
        if endpoint is not None:
            raise
        log.warning("spans are not recorded: %s", error)
        return False
    return True


def stop_tracing(seconds: float = FLUSH_SECONDS) -> None:
    """Hand over what was recorded, in so many seconds at most; idempotent. Blocks: not for an event loop."""
    global _tracer
    tracer, _tracer = _tracer, None
    if tracer is not None:
        tracer.stop(seconds)


@contextlib.contextmanager
def tracing(role: str, endpoint: str | None = None) -> Iterator[None]:
    """Within the block, as ``start_tracing`` has it. Raises what that raises."""
    start_tracing(role, endpoint)
    try:
        yield
    finally:
        stop_tracing()


def _exporter(endpoint: str | None) -> str | None:
    """By its name in OTEL_TRACES_EXPORTER; None: nothing asks for spans."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if endpoint is not None:
        return "otlp"
    chosen = os.environ.get(_EXPORTER, "").strip().lower()
    if not chosen:
        return "otlp" if any(os.environ.get(name) for name in _ENDPOINTS) else None
    return None if chosen == "none" else chosen


def _new_tracer(role: str, exporter: str, endpoint: str | None) -> Tracer:
    """Raises InputError."""
    if exporter not in _EXPORTERS:
        remedy = f"{', '.join(_EXPORTERS)} or none"
        raise InputError(_EXPORTER, exporter, "is not known here", remedy=remedy)
    try:
        from transport.span_export import new_tracer
    except ImportError as error:
        raise _unavailable(endpoint, "needs OpenTelemetry, which is not installed", _REMEDY) from error
    try:
        return new_tracer(role, exporter, endpoint)
    except ImportError as error:  # the exporters are packages of their own
        raise _unavailable(endpoint, "needs OpenTelemetry's exporter, which is not installed", _REMEDY) from error
    except Exception as error:  # of settings in the environment, in the words of the SDK
        problem = f"cannot be set up: {type(error).__name__}: {error}"
        raise _unavailable(endpoint, problem, "look at the variables OTEL_...") from error


def _unavailable(endpoint: str | None, problem: str, remedy: str) -> InputError:
    if endpoint is not None:
        return InputError("otlp-traces-endpoint", endpoint, problem, remedy=remedy)
    name = next(
        (name for name in ("OTEL_TRACES_EXPORTER", *_ENDPOINTS) if os.environ.get(name)), "OTEL_TRACES_EXPORTER"
    )
    return InputError(name, os.environ.get(name), problem, remedy=remedy)
