"""Spans by OpenTelemetry's SDK, on their way to a collector: the only module that imports it.

Settings are those of the SDK, by its environment variables. A collector that is away costs nobody anything but the
spans: they are handed over by a thread of their own, of a bounded queue, and that it fails is said once.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, StatusCode, TraceFlags, TraceState

from speculation.errors import InputError
from transport.address import Address
from transport.channels import is_always_direct
from transport.trace_context import TraceContext, checked
from transport.tracing import Attributes, Span, SpanKind
from transport.version import VERSION

log = logging.getLogger(__name__)

#: Spans handed over together. With the SDK's bound of 128 events a span, of some 400 bytes each, that is well below the
#: 4 MiB that a collector takes in one message; the SDK's own number, 512, is not.
BATCH: Final = 32
_BATCH_VARIABLE: Final = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
_PROTOCOL_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_ENDPOINT_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_EXPORTERS: Final = {
    "grpc": "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http.trace_exporter",
}
_KINDS: Final = {SpanKind.SERVER: trace.SpanKind.SERVER, SpanKind.CONSUMER: trace.SpanKind.CONSUMER}


def new_tracer(role: str, exporter: str, endpoint: str | None) -> SdkTracer:
    """``exporter``: otlp or console. ``endpoint`` None: as the environment says. Raises InputError for a protocol that
    is not known, ImportError without the package of the exporter, and what the SDK raises for its settings."""
    inner = ConsoleSpanExporter(out=sys.stderr) if exporter == "console" else _otlp_exporter(endpoint)
    return SdkTracer(role, inner)


def _otlp_exporter(endpoint: str | None) -> SpanExporter:
    name = next((name for name in _PROTOCOL_VARIABLES if os.environ.get(name)), _PROTOCOL_VARIABLES[-1])
    protocol = os.environ.get(name) or "grpc"
    if protocol not in _EXPORTERS:
        raise InputError(name, protocol, "is not known here", remedy=" or ".join(_EXPORTERS))
    module: Any = importlib.import_module(_EXPORTERS[protocol])
    around = _around_the_proxy(protocol) if _is_direct(endpoint) else {}
    exporter: SpanExporter = module.OTLPSpanExporter(endpoint=endpoint, **around)
    return exporter


def _is_direct(endpoint: str | None) -> bool:
    """Whether the collector is dialled without a proxy, as ``transport/channels.py`` has it of all addresses."""
    given = endpoint or next((found for name in _ENDPOINT_VARIABLES if (found := os.environ.get(name))), "localhost")
    host = urlsplit(given if "://" in given else f"//{given}").hostname or "localhost"
    return is_always_direct(Address(host, 0))


def _around_the_proxy(protocol: str) -> dict[str, Any]:
    if protocol == "grpc":
        return {"channel_options": (("grpc.enable_http_proxy", 0),)}
    session = importlib.import_module("requests").Session()  # that exporter brings it along
    session.trust_env = False
    return {"session": session}


class SdkTracer:
    """A provider of its own, which leaves the one of the process, a program's, alone.

    ``role``: of the service; its name is ``dragoman-<role>`` where OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES give
    none.
    """

    def __init__(self, role: str, exporter: SpanExporter) -> None:
        self._exporter = _Quiet(exporter)
        self._provider = TracerProvider(resource=_resource(role), shutdown_on_exit=False)
        batch = None if os.environ.get(_BATCH_VARIABLE) else BATCH
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter, max_export_batch_size=batch))
        self._tracer = self._provider.get_tracer("dragoman", VERSION)

    def start(self, name: str, *, kind: SpanKind, parent: TraceContext, attributes: Attributes) -> Span:
        """See ``transport.tracing.Tracer``."""
        started = self._tracer.start_span(
            name, context=_context(parent), kind=_KINDS[kind], attributes=dict(attributes)
        )
        return _RecordedSpan(started)

    def stop(self, seconds: float) -> None:
        """See ``transport.tracing.Tracer``."""
        # By itself the processor waits for half a minute for a collector that is away.
        flushing = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
        flushing.start()
        flushing.join(seconds)
        if flushing.is_alive():
            self._exporter.give_up()


def _resource(role: str) -> Resource:
    found = Resource.create({"service.version": VERSION, "dragoman.role": role})
    if str(found.attributes.get("service.name", "")).startswith("unknown_service"):  # as the SDK fills it in
        found = found.merge(Resource({"service.name": f"dragoman-{role}"}))
    return found


def _context(parent: TraceContext) -> Context:
    if not parent:
        return Context()  # not the program's: the caller said that there is none
    state = TraceState.from_header([parent.tracestate]) if parent.tracestate else None
    span = SpanContext(
        trace_id=parent.trace_id,
        span_id=parent.span_id,
        is_remote=True,
        trace_flags=TraceFlags(parent.flags),
        trace_state=state,
    )
    return trace.set_span_in_context(NonRecordingSpan(span), Context())


class _RecordedSpan(Span):
    __slots__ = ("_ended", "_span", "recording")

    def __init__(self, span: trace.Span) -> None:
        found = span.get_span_context()
        traceparent = f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"
        super().__init__(checked(traceparent, found.trace_state.to_header()))
        self._span = span
        self._ended = False
        self.recording = span.is_recording()  # a sampler may have left it out

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(dict(attributes))

    def event(self, name: str, attributes: Attributes, *, at: float | None = None) -> None:
        ago = time.perf_counter() - at if at is not None else 0.0
        self._span.add_event(name, dict(attributes), timestamp=time.time_ns() - int(ago * 1e9))

    def fail(self, kind: str) -> None:
        self._span.set_attribute("error.type", kind)
        self._span.set_status(StatusCode.ERROR)

    def end(self) -> None:
        if not self._ended:
            self._ended = True
            self._span.end()


class _LastWords(logging.Handler):
    """Keeps the last that was said."""

    def __init__(self) -> None:
        super().__init__()
        self.words = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.words = record.getMessage()


class _Quiet(SpanExporter):
    """Says once that a collector takes no spans, and once that it does again. By itself an exporter says it for every
    batch, and several times."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._failing = self._given_up = False
        self._heard = _LastWords()
        theirs = logging.getLogger("opentelemetry.exporter.otlp")
        theirs.propagate = False
        theirs.addHandler(self._heard)
        self._theirs = theirs

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """In the thread of the processor."""
        if self._given_up:
            return SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        except Exception as error:
            self._heard.words = f"{type(error).__name__}: {error}"
            result = SpanExportResult.FAILURE
        failed = result is not SpanExportResult.SUCCESS
        if self._given_up:
            return result
        if failed and not self._failing:
            log.warning("spans are lost, texts go on: %s", self._heard.words or "the collector does not take them")
        elif self._failing and not failed:
            log.warning("the collector takes spans again")
        self._failing = failed
        return result

    def give_up(self) -> None:
        """What is still to be exported is lost; idempotent."""
        if not self._given_up:
            self._given_up = True
            log.warning("spans are lost: the collector did not take them in time")
            self._exporter.shutdown()

    def shutdown(self) -> None:
        """By the processor, after the last batch."""
        self._theirs.removeHandler(self._heard)
        if not self._given_up:
            self._given_up = True
            self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is held back here."""
        return True
