"""The page that `--metrics-port` serves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from speculation.errors import ConnectionFailedError
from transport.address import Address

if TYPE_CHECKING:
    from verifier_service.instruments import Instruments


@contextlib.contextmanager
def metrics_page(
    host: str, port: int | None, loop: asyncio.AbstractEventLoop
) -> Iterator[Callable[[str, str], Instruments | None]]:
    """Prometheus metrics served at the port: of the process and its event loop at once, of the verifier from when the
    function that it gives is called with the names of model and verifier.

    Raises ConnectionFailedError.
    """
    if port is None:
        yield lambda model, name: None
        return
    from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, start_http_server

    from verifier_service.instruments import PrometheusInstruments
    from verifier_service.metrics import OWN

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    tasks = Gauge(f"{OWN}event_loop_tasks", "Tasks of the event loop.", registry=registry)
    tasks.set_function(lambda: len(asyncio.all_tasks(loop)))
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise ConnectionFailedError(
            f"cannot serve metrics at {Address(host, port)}: {error.strerror or error}",
            remedy="give another --metrics-port",
        ) from error

    try:
        yield lambda model, name: PrometheusInstruments(registry, model, name)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
