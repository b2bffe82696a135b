"""`dragoman bench` from its checked options to its exit code."""

from __future__ import annotations

import asyncio
import json
import math
import os
import platform
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from dragoman.bench.comparison import comparison_of
from dragoman.bench.endpoint import BenchEndpoint
from dragoman.bench.figures import details_of, figures_of
from dragoman.bench.measurement import BenchRequest, Measurement
from dragoman.bench.report import show
from dragoman.bench.session import BenchSession
from dragoman.bench.settings import BenchSettings
from dragoman.terminal import progress_bar
from speculation.errors import InputError
from speculation.plural import count_of
from transport.version import VERSION

#: What a shell reports of a program that Ctrl-C ended.
INTERRUPTED = 130


def run_bench(endpoint: BenchEndpoint, requests: Sequence[BenchRequest], settings: BenchSettings) -> int:
    """Measure and show; the exit code: 1 if a request failed, or a text of a comparison differs.

    Ctrl-C ends it early, and what was measured is shown. Raises DragomanError if the endpoint cannot be used.
    """
    server: dict[str, Any] = {}
    notes = Console(stderr=True)
    with progress_bar(notes) as progress:
        session = BenchSession(
            endpoint,
            requests,
            settings.load,
            compare=settings.compare,
            on_done=lambda done, total: progress("measuring", done, total),
        )
        interrupted = False
        try:
            asyncio.run(_measure(endpoint, session, settings, server=server, progress=progress))
        except KeyboardInterrupt:
            if not session.measured:
                raise
            interrupted = True
    result = result_of(session, settings, server | {"backend": endpoint.backend, "num_prompts": len(requests)})
    if settings.save_result is not None:
        _save(result | details_of(_main_arm(session.measured)), settings.save_result)
    _show(result, session.measured, settings)
    if interrupted:
        total = count_of(session.total, "text was measured", "texts were measured")
        words = f"interrupted: {len(session.measured)} of {total}"
        notes.print(words, style="yellow", highlight=False)
        return INTERRUPTED
    compared = result.get("compare", {})
    differs = compared.get("identical_texts") != compared.get("pairs")
    return 1 if differs or any(one.error for one in session.measured) else 0


async def _measure(
    endpoint: BenchEndpoint,
    session: BenchSession,
    settings: BenchSettings,
    *,
    server: dict[str, Any],
    progress: Callable[[str, int, int], None],
) -> None:
    """``server``: is told what is there."""
    async with endpoint:
        server.update(await endpoint.describe())
        progress("warming up", 0, 1)
        await session.warm_up(settings.num_warmups)
        progress("measuring", 0, session.total)
        await session.run()


def _main_arm(measured: Sequence[Measurement]) -> list[Measurement]:
    """Those with drafters, if it is a comparison; in the order of asking."""
    return sorted((one for one in measured if one.request.draft), key=lambda one: one.request.number)


def result_of(session: BenchSession, settings: BenchSettings, server: dict[str, Any]) -> dict[str, Any]:
    """The object that --json prints, with the keys of `vllm bench serve` and some more. What is not defined is null.

    In a comparison the figures are those of the requests with drafters; their time is what these took, as they come
    one after the other.
    """
    drafted = _main_arm(session.measured)
    alone = [one for one in session.measured if not one.request.draft]
    load = settings.load

    def figures(measured: Sequence[Measurement]) -> dict[str, Any]:
        seconds = sum(one.e2el for one in measured) if settings.compare else session.seconds
        return figures_of(
            measured, max(seconds, 1e-9), goal=settings.goal, metrics=settings.metrics, ranks=settings.ranks
        )

    result = {
        "date": datetime.now(UTC).strftime("%Y%m%d-%H%M%S"),
        **server,
        "request_rate": _finite(load.request_rate),
        "burstiness": _finite(load.burstiness),
        "max_concurrency": load.max_concurrency,
        "metric_percentiles": list(settings.ranks),
        "client": client_info(),
        **figures(drafted),
    }
    if settings.compare:
        result["compare"] = {"with": "no-draft", **comparison_of(drafted, alone), "no_draft": figures(alone)}
    return result


def _finite(number: float) -> float | str:
    """JSON has no infinity; vLLM writes "inf"."""
    return number if math.isfinite(number) else "inf"


def client_info() -> dict[str, Any]:
    """The machine that measures."""
    return {
        "dragoman": VERSION,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
    }


def _show(result: dict[str, Any], measured: Sequence[Measurement], settings: BenchSettings) -> None:
    if settings.plot is not None:
        from dragoman.bench.plots import draw

        draw(result, measured, settings.plot)
    if settings.as_json:
        print(json.dumps(result))
    else:
        show(result, [one.error for one in measured if one.error], Console(highlight=False))


def _save(result: dict[str, Any], path: Path) -> None:
    try:
        path.write_text(json.dumps(result) + "\n", "utf-8")
    except OSError as error:
        problem = f"cannot be written: {error.strerror}"
        raise InputError("save-result", path, problem, remedy="check the path") from error
