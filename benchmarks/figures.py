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

import numpy as np

from dragoman.completion import Completion

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


@dataclass(frozen=True, slots=True)
class Goal:
    """Milliseconds that a good request keeps; 0: any number."""

    ttft_ms: float = 0.0
    tpot_ms: float = 0.0

    def kept(self, row: dict[str, Any]) -> bool:
        """Whether a request with these figures is a good one."""
        limits = (("ttft_ms", self.ttft_ms), ("tpot_ms", self.tpot_ms))
        return all(not limit or (row[name] or 0.0) <= limit for name, limit in limits)


def percentiles(name: str, values: Sequence[float | None]) -> dict[str, float]:
    """``median_NAME``, ``p90_NAME`` and so on of the values that there are; {} without any."""
    known = [value for value in values if value is not None]
    if not known:
        return {}
    found = np.percentile(known, PERCENTILES)
    return {
        f"{'median' if rank == 50 else f'p{rank}'}_{name}": float(value)
        for rank, value in zip(PERCENTILES, found, strict=True)
    }


def of_rows(rows: Sequence[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Of requests, of whomever, which took so many seconds together."""
    tokens = sum(row["output_tokens"] for row in rows)
    figures: dict[str, Any] = {
        "completed": len(rows),
        "duration": seconds,
        "total_output_tokens": tokens,
        "output_throughput": tokens / seconds,
        "request_throughput": len(rows) / seconds,
    }
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


def ratios(name: str, values: Sequence[float | None]) -> dict[str, float]:
    """Median, quartiles and the worst of what is there."""
    found = percentiles(name, values)
    kept = {key: found[key] for key in (f"median_{name}", f"p25_{name}", f"p75_{name}") if key in found}
    return kept | ({f"worst_{name}": min(value for value in values if value is not None)} if kept else {})


def over(name: str, rows: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]]) -> dict[str, float]:
    """How much faster than ``base``, request by request: NAME of whole requests, tpot_NAME from the first token on."""
    pairs = list(zip(rows, base, strict=True))
    whole = [_ratio(row["output_throughput"], other["output_throughput"]) for row, other in pairs]
    decoding = [_ratio(other["tpot_ms"], row["tpot_ms"]) for row, other in pairs]
    return ratios(name, whole) | ratios(f"tpot_{name}", decoding)


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one and other else None
