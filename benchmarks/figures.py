"""Figures of requests and of arms, under one set of names: those of vLLM's benchmarks.

A request: ``ttft_ms``, ``tpot_ms``, ``e2el_ms``, ``output_throughput``, ``mean_acceptance_length`` and others. An arm:
the same as ``median_``, ``p90_`` and so on over its requests, and what all of them had together.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dragoman.bench.figures import throughput
from dragoman.bench.goal import Goal
from dragoman.bench.percentiles import percentiles as percentiles_of
from speculation.protocol.completion import Completion

if TYPE_CHECKING:
    from benchmarks.transformers_arm import Answer

PERCENTILES = (25, 50, 75, 90, 99)


def of_completion(completion: Completion) -> dict[str, Any]:
    """Of a request to Dragoman."""
    stats = completion.stats
    return {
        "output_tokens": completion.completion_tokens,
        "ttft_ms": completion.ttft * 1000,
        "tpot_ms": None if completion.tpot is None else completion.tpot * 1000,
        "e2el_ms": completion.e2el * 1000,
        "output_throughput": completion.completion_tokens / completion.e2el,
        "mean_acceptance_length": completion.tokens_per_step,
        "acceptance_rate": completion.acceptance_rate,
        "steps": stats.steps,
        "spans": stats.spans,
        "stale_spans": stats.stale_spans,
        "sources": {
            f"{one.source.value} {one.name}".strip(): [one.draft_tokens, one.accepted_tokens] for one in stats.sources
        },
        "overhead_p50_ms": stats.overhead_p50_seconds * 1000,
        "bytes_per_token": (stats.bytes_up + stats.bytes_down) / max(1, completion.completion_tokens),
    }


def of_answer(answer: Answer) -> dict[str, Any]:
    """Of a request to transformers."""
    return {
        "output_tokens": len(answer.token_ids),
        "ttft_ms": answer.ttft * 1000,
        "tpot_ms": None if answer.tpot is None else answer.tpot * 1000,
        "e2el_ms": answer.seconds * 1000,
        "output_throughput": len(answer.token_ids) / answer.seconds,
    }


@dataclass(slots=True)
class Served:
    """An answer, and the seconds at which its chunks came, on any steady clock."""

    completion: Completion
    arrivals: list[float] = field(default_factory=list)

    @property
    def gaps(self) -> list[float]:
        """Seconds between chunks."""
        return [later - earlier for earlier, later in itertools.pairwise(self.arrivals)]


def percentiles(name: str, values: Sequence[float | None]) -> dict[str, float]:
    """``median_NAME``, ``p90_NAME`` and so on of the values that there are; {} without any."""
    return percentiles_of(name, values, PERCENTILES)


def of_rows(rows: Sequence[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Of requests, of whomever, which took so many seconds together."""
    figures = throughput(rows, seconds)
    for name in ("ttft_ms", "tpot_ms", "e2el_ms"):
        figures |= percentiles(name, [row[name] for row in rows])
    return figures


def of_arm(served: Sequence[Served], seconds: float, goal: Goal) -> dict[str, Any]:
    """Of requests to Dragoman. ``request_goodput``: of those that keep the goal, per second."""
    rows = [of_completion(one.completion) for one in served]
    drafts = sum(one.completion.stats.draft_tokens for one in served)
    accepted = sum(one.completion.stats.accepted_tokens for one in served)
    return {
        **of_rows(rows, seconds),
        **percentiles("itl_ms", [gap * 1000 for one in served for gap in one.gaps]),
        "request_goodput": sum(goal.kept(row) for row in rows) / seconds,
        "mean_acceptance_length": statistics.mean(row["mean_acceptance_length"] or 0.0 for row in rows),
        "acceptance_rate": accepted / drafts if drafts else None,
    }
