"""Recording is off until somebody asks for it, and a collector that is away, or a package, costs nothing but spans."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from speculation.errors import InputError
from tests.support.collectors import Collector, collecting, collecting_over_http, traced_here
from tests.support.repository import ROOT
from tests.support.service_drivers import PATIENCE
from transport import tracing
from transport.trace_context import NO_TRACE, TraceContext
from transport.tracing import NO_SPAN, current_span, outgoing, start_span, start_tracing, stop_tracing, using

PARENT = TraceContext("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "a=1")
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture(autouse=True)
def _no_tracing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OTEL_TRACES_EXPORTER", raising=False)
    monkeypatch.delenv(ENDPOINT, raising=False)
    yield
    stop_tracing(0.0)


def said(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """pytest listens to loggers that pass nothing on, too."""
    return [record for record in caplog.records if not record.name.startswith("opentelemetry")]


def record(*names: str) -> None:
    for name in names:
        span = start_span(name)
        span.event("e", {"n": 1})
        span.end()


# ---- off ----------------------------------------------------------------------------------------------------------


def test_off_nothing_is_recorded_and_the_callers_trace_is_passed_on():
    assert not start_tracing("test")
    assert start_span("s") is NO_SPAN and not NO_SPAN.recording and outgoing() == NO_TRACE
    span = start_span("s", parent=PARENT)
    with using(span):
        assert current_span() is span and outgoing() == PARENT and not span.recording
    assert current_span() is NO_SPAN
    span.event("e", {}, at=0.0)
    span.end()


def test_a_program_that_uses_opentelemetry_has_its_own_span_carried_on():
    with TracerProvider().get_tracer("program").start_as_current_span("asking") as asking:
        context = asking.get_span_context()
        assert (outgoing().trace_id, outgoing().span_id) == (context.trace_id, context.span_id)
        assert outgoing().flags == context.trace_flags and context.trace_flags.sampled
        with using(start_span("s", parent=PARENT)):
            assert outgoing() == PARENT
    assert outgoing() == NO_TRACE


@pytest.mark.parametrize(
    ("variables", "on"),
    [
        ({ENDPOINT: "{url}"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "{url}"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", ENDPOINT: "{url}"}, False),
        ({"OTEL_SDK_DISABLED": "true", ENDPOINT: "{url}"}, False),
        ({ENDPOINT: ""}, False),
        ({}, False),
    ],
)
def test_the_standard_variables_turn_it_on(variables: dict[str, str], on: bool, monkeypatch: pytest.MonkeyPatch):
    with collecting() as collector:
        for name, value in variables.items():
            monkeypatch.setenv(name, value.format(url=collector.url))
        assert start_tracing("test") is on
        stop_tracing()


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("OTEL_TRACES_EXPORTER", "jaeger", "otlp, console or none"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "grpc or http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "cannot be set up: ValueError"),
    ],
)
def test_settings_that_cannot_be_are_an_error_of_the_option_and_a_warning_of_the_environment(
    variable: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv(variable, value)
    assert not start_tracing("test")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and words in record.message and "\n" not in record.message
    if variable != "OTEL_TRACES_EXPORTER":
        with pytest.raises(InputError, match=words):
            start_tracing("test", "http://127.0.0.1:4317")
    with pytest.raises(InputError, match="otlp-traces-endpoint"):
        start_tracing("test", "collector:4317")
    assert not tracing.start_tracing("test")


@pytest.mark.process
@pytest.mark.parametrize("missing", ["opentelemetry", "opentelemetry.exporter.otlp"])
def test_without_the_extra_a_service_says_what_would_help_and_does_without(missing: str):
    """With the option it is an error; what the whole environment of a machine asks for is a warning."""
    code = f"import sys; sys.modules[{missing!r}] = None; from dragoman.cli import main; main()"
    mistaken = [sys.executable, "-c", code, "verifier", "--model=nonsense"]

    def run(*more: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*mistaken, *more], cwd=ROOT, capture_output=True, text=True, env=variables | environment)

    variables = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    asked = run(**{ENDPOINT: "http://127.0.0.1:4317"})
    assert asked.returncode == 3 and "no model 'nonsense'" in asked.stderr  # it went on to what is wrong here
    assert "spans are not recorded" in asked.stderr and "pip install 'dragoman[otel]'" in asked.stderr
    told = run("--otlp-traces-endpoint=http://127.0.0.1:4317")
    assert told.returncode == 2 and "pip install 'dragoman[otel]'" in told.stderr and "nonsense" not in told.stderr
    assert "Traceback" not in asked.stderr + told.stderr


@pytest.mark.process
@pytest.mark.parametrize(
    ("modules", "name"),
    [
        ("dragoman.cli, dragoman.client, drafter_service.client, verifier_service.server", "opentelemetry"),
        ("gateway.server", "opentelemetry.sdk"),  # the rest FastAPI imports by itself
    ],
)
def test_opentelemetry_is_not_imported_where_nobody_asks(modules: str, name: str):
    code = f"import sys, {modules}; print(*(module for module in sys.modules if module.startswith({name!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# ---- on -----------------------------------------------------------------------------------------------------------


def test_spans_go_to_the_collector_by_either_protocol(monkeypatch: pytest.MonkeyPatch):
    """Past a proxy, which knows nothing of this machine's loopback."""
    for name in ("grpc_proxy", "http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)

    def recorded(collector: Collector) -> list[str]:
        assert start_tracing("gateway", collector.url + path)
        record("a", "b")
        stop_tracing()
        return [span.name for span in collector.of("dragoman-gateway")]

    path = ""
    with collecting() as collector:
        assert recorded(collector) == ["a", "b"]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    path = "/v1/traces"
    with collecting_over_http() as collector:
        assert recorded(collector) == ["a", "b"]


def test_a_service_is_called_as_the_environment_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "front-door")
    with traced_here() as collector:
        record("a")
    assert [span.service for span in collector.spans] == ["front-door"]


def test_a_span_belongs_to_its_parent_and_is_no_part_of_the_programs_trace():
    with traced_here() as collector, TracerProvider().get_tracer("program").start_as_current_span("program"):
        child = start_span("child", parent=PARENT)
        start_span("first").end()
        assert child.context.trace_id == PARENT.trace_id and child.context.span_id != PARENT.span_id
        child.fail("SessionError")
        child.end()
        child.end()
    first, told = sorted(collector.spans, key=lambda span: span.name, reverse=True)
    assert first.parent == "" and first.trace != told.trace and not first.failed
    assert (told.trace, told.parent, told.state) == (f"{PARENT.trace_id:032x}", f"{PARENT.span_id:016x}", "a=1")
    assert told.failed and told.attributes["error.type"] == "SessionError"
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)  # the program's was left alone


def test_a_caller_that_records_nothing_is_followed_in_that():
    unsampled = TraceContext(PARENT.traceparent[:-1] + "0")
    with traced_here() as collector:
        span = start_span("s", parent=unsampled)
        assert not span.recording and span.context.trace_id == PARENT.trace_id and span.context.flags == 0
        span.end()
    assert collector.spans == []


def test_many_spans_with_all_their_events_come_in_messages_that_a_collector_takes():
    event = {f"dragoman.attribute_{number}": 1.5 for number in range(9)}
    with traced_here() as collector:
        for _ in range(130):
            span = start_span("s")
            for _ in range(200):
                span.event("dragoman.round", event)
            span.end()
    assert len(collector.spans) == 130
    assert {len(span.events) for span in collector.spans} == {128}
    assert {span.dropped_events for span in collector.spans} == {72}
    assert max(batch.ByteSize() for batch in collector.batches) < 4 << 20


# ---- a collector that is away -------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_collector_that_is_away_is_told_of_once_and_never_waited_for(
    protocol: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    assert start_tracing("test", f"http://127.0.0.1:{free_port()}")
    record(*"abcdefgh" * 20)  # more than a batch
    stop_tracing(30.0)
    (told,) = said(caplog)
    assert told.levelno == logging.WARNING and told.message.startswith("spans are lost, texts go on: ")
    assert told.exc_info is None
    theirs = logging.getLogger("opentelemetry.exporter.otlp")
    assert not theirs.propagate and "Traceback" not in "".join(capfd.readouterr())


def test_a_stop_does_not_wait_for_a_collector_that_takes_nothing(caplog: pytest.LogCaptureFixture):
    with socket.create_server(("127.0.0.1", 0)) as hanging:  # takes connections, and says nothing
        assert start_tracing("test", f"http://127.0.0.1:{hanging.getsockname()[1]}")
        record("a")
        stop_tracing(0.1)
    assert [record.message for record in said(caplog)] == ["spans are lost: the collector did not take them in time"]


def test_a_collector_that_comes_back_is_told_of(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    port = free_port()
    assert start_tracing("test", f"http://127.0.0.1:{port}")
    record("lost")
    while not said(caplog):
        record("lost")
        time.sleep(0.01)  # or there would be more to export in the end than a busy machine has time for
    with collecting(port) as collector:
        while not collector.spans:
            record("came")
            time.sleep(0.01)
        stop_tracing(PATIENCE)
    assert [record.message for record in said(caplog)][1:] == ["the collector takes spans again"]
