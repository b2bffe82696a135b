"""--otlp-traces-endpoint, for every command that serves texts or drafts for them."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final

import typer

from dragoman.option_groups import grouped, option

#: vLLM's name for it.
_NAME: Final = "otlp_traces_endpoint"
_ENDPOINT, _EXPORTER = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER"
_HELP: Final = (
    "Send OpenTelemetry spans to the collector at this URL; needs the extra otel. "
    f"In the environment: {_EXPORTER}, {_ENDPOINT} and others of OpenTelemetry"
)


def traced(role: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator: the command with that option besides its own, and with spans recorded while it runs. ``role``: see
    ``transport.tracing.start_tracing``."""

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def recording(*, otlp_traces_endpoint: str | None, **given: Any) -> None:
            from transport.tracing import tracing

            with _for_children(otlp_traces_endpoint), tracing(role, otlp_traces_endpoint):
                command(**given)

        given = option(_NAME, Annotated[str | None, typer.Option(help=_HELP, metavar="URL")], None)
        return grouped(recording, _NAME, [given], lambda values: values[_NAME])

    return decorated


@contextlib.contextmanager
def _for_children(endpoint: str | None) -> Iterator[None]:
    """What this process starts within the block, a target or a drafter, sends its spans to the same collector."""
    before = {name: os.environ.get(name) for name in (_ENDPOINT, _EXPORTER)}
    if endpoint is not None:
        os.environ.update({_ENDPOINT: endpoint, _EXPORTER: "otlp"})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
