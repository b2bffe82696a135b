"""--otlp-traces-endpoint: while a command runs, spans are recorded, by what it starts as well."""

from __future__ import annotations

import os

import pytest
import typer

from drafter_service.settings import DrafterSettings
from dragoman import local_fleet
from dragoman.local_fleet import LocalFleet, LocalModels
from dragoman.tracing_options import traced
from tests.support.collectors import collecting
from transport.tracing import start_span
from verifier_service.settings import VerifierSettings

VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)


def test_a_command_records_spans_while_it_runs_and_leaves_the_environment_as_it_was():
    seen: list[tuple[str | None, ...]] = []

    @traced("gateway")
    def command(*, word: str = "") -> None:
        seen.append((word, *map(os.environ.get, VARIABLES)))
        start_span("s").end()

    app = typer.Typer()
    app.command()(command)
    with collecting() as collector:
        app(["--word=a", f"--otlp-traces-endpoint={collector.url}"], standalone_mode=False)
        app(["--word=b"], standalone_mode=False)
    assert seen == [("a", collector.url, "otlp"), ("b", None, "none")]
    assert [span.name for span in collector.of("dragoman-gateway")] == ["s"]
    assert (os.environ.get(VARIABLES[0]), os.environ[VARIABLES[1]]) == (None, "none")


async def test_what_serve_starts_sends_its_spans_to_the_same_collector(monkeypatch: pytest.MonkeyPatch):
    """Its children have the variables of this process, as the command leaves them while it runs."""
    given: list[dict[str, str]] = []

    def child(name: str, arguments: object, *, environment: dict[str, str]) -> object:
        given.append(environment)
        raise RuntimeError

    monkeypatch.setattr(local_fleet, "child", child)
    models = LocalModels(VerifierSettings(model="m"), [DrafterSettings(model="lookup")])

    class Silent:
        def starting(self, name: str) -> None: ...

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:4317")
    with pytest.raises(RuntimeError):
        async with LocalFleet(models, Silent()).target():  # type: ignore[arg-type]
            pass
    assert given[0]["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] == "http://collector:4317"
