"""What a person wants of `dragoman bench`, checked before anybody is asked."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from dragoman.bench.figures import METRICS
from dragoman.bench.goal import Goal
from dragoman.bench.load import Load
from dragoman.plot_file import check_folder, check_plot
from speculation.errors import InputError


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """``metrics``: of ``METRICS``; ``ranks``: percentiles of each, 0..100. Raises InputError."""

    load: Load
    goal: Goal
    metrics: tuple[str, ...]
    ranks: tuple[float, ...]
    num_warmups: int
    compare: bool = False
    as_json: bool = False
    save_result: Path | None = None
    plot: Path | None = None

    def __post_init__(self) -> None:
        if self.compare and self.load != Load(max_concurrency=1, seed=self.load.seed):
            problem = "asks one request after the other, so that none disturbs another"
            raise InputError("compare", "no-draft", problem, remedy="leave out the options of the load")
        if self.plot is not None:
            check_plot(self.plot)
        if self.save_result is not None:
            check_folder("save-result", self.save_result)


def parse_metrics(text: str) -> tuple[str, ...]:
    """Of a list such as "ttft,itl". Raises InputError."""
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in METRICS:
            raise InputError("percentile-metrics", name, "is no metric", remedy=f"choose of {','.join(METRICS)}")
    return names


def parse_ranks(text: str) -> tuple[float, ...]:
    """Of a list such as "50,99.9". Raises InputError."""
    found = []
    for part in text.split(","):
        try:
            rank = float(part)
        except ValueError:
            rank = -1.0
        if not 0 <= rank <= 100:
            problem = "is no percentile"
            raise InputError("metric-percentiles", part, problem, remedy="give numbers from 0 to 100, such as 50,99")
        found.append(rank)
    return tuple(found)


def api_key_of(variable: str | None) -> str | None:
    """What the environment has there. Raises InputError if it has nothing."""
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise InputError("api-key-env", variable, "is not set", remedy=f"export {variable}=KEY")
    if not (key.isascii() and key.isprintable()):
        raise InputError("api-key-env", variable, "holds what no key is made of", remedy="look at what was pasted")
    return key
