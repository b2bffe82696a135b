"""A collector of OpenTelemetry spans over real sockets, for tests."""

from __future__ import annotations

import contextlib
import http.server
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as pb_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

from transport.tracing import start_tracing, stop_tracing

#: Seconds in which what is on its way has come, on a machine whose cores are busy.
PATIENCE = 60.0
SERVER, CONSUMER = trace_pb2.Span.SPAN_KIND_SERVER, trace_pb2.Span.SPAN_KIND_CONSUMER
ERROR = trace_pb2.Status.STATUS_CODE_ERROR


@dataclass(frozen=True)
class Event:
    """Of a span."""

    name: str
    at: int
    attributes: dict[str, Any]


@dataclass(frozen=True)
class CollectedSpan:
    """Ids in hexadecimal; ``parent`` is "" for the first of a trace. ``service``: that recorded it."""

    name: str
    trace: str
    id: str
    parent: str
    state: str
    kind: int
    failed: bool
    service: str
    attributes: dict[str, Any]
    events: list[Event]
    dropped_events: int
    began: int
    ended: int


@dataclass
class Collector:
    """What came so far, by message: as bytes too, for what must not be in them."""

    port: int = 0
    batches: list[pb.ExportTraceServiceRequest] = field(default_factory=list)

    @property
    def url(self) -> str:
        """For --otlp-traces-endpoint."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def raw(self) -> bytes:
        """All messages, as they were sent."""
        return b"".join(batch.SerializeToString() for batch in self.batches)

    @property
    def spans(self) -> list[CollectedSpan]:
        """In the order in which they ended, as far as one service recorded them."""
        return [
            _read(span, dict(_values(resource.resource.attributes)))
            for batch in list(self.batches)
            for resource in batch.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def of(self, service: str) -> list[CollectedSpan]:
        """Those that a service recorded."""
        return [span for span in self.spans if span.service == service]

    def wait_for(self, count: int) -> list[CollectedSpan]:
        """Until so many have come. Blocks. Raises AssertionError if they do not."""
        deadline = time.monotonic() + PATIENCE
        while len(self.spans) < count:
            assert time.monotonic() < deadline, [span.name for span in self.spans]
            time.sleep(0.01)
        return self.spans


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_value(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, kind)


def _values(attributes: Any) -> Iterator[tuple[str, Any]]:
    return ((each.key, _value(each.value)) for each in attributes)


def _read(span: Any, resource: dict[str, Any]) -> CollectedSpan:
    return CollectedSpan(
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        state=span.trace_state,
        kind=span.kind,
        failed=span.status.code == ERROR,
        service=resource["service.name"],
        attributes=dict(_values(span.attributes)),
        events=[Event(each.name, each.time_unix_nano, dict(_values(each.attributes))) for each in span.events],
        dropped_events=span.dropped_events_count,
        began=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
    )


class _Servicer(pb_grpc.TraceServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._collector.batches.append(request)
        return pb.ExportTraceServiceResponse()


@contextlib.contextmanager
def collecting(port: int = 0) -> Iterator[Collector]:
    """One that listens for gRPC at a port of loopback, 0: a free one."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    pb_grpc.add_TraceServiceServicer_to_server(_Servicer(collector), server)
    collector.port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield collector
    finally:
        server.stop(0).wait()


@contextlib.contextmanager
def collecting_over_http() -> Iterator[Collector]:
    """One that takes protobuf at /v1/traces."""
    collector = Collector()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.batches.append(pb.ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Nothing on standard error."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def traced_here(role: str = "test") -> Iterator[Collector]:
    """All services of this process record spans within the block; after it, the collector has them all."""
    with collecting() as collector:
        assert start_tracing(role, collector.url)
        try:
            yield collector
        finally:
            stop_tracing(PATIENCE)
