"""Percentiles of values, and the names that vLLM's benchmarks give them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def percentile(values: Sequence[float], rank: float) -> float:
    """``rank`` in 0..100, between two values linear, as numpy does it. Raises ValueError without values."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    place = (len(ordered) - 1) * rank / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def rank_name(rank: float) -> str:
    """p99, p99.9."""
    return f"p{rank:g}"


def percentiles(name: str, values: Sequence[float | None], ranks: Sequence[float]) -> dict[str, float]:
    """``median_NAME``, ``p90_NAME`` and so on of the values that there are; {} without any."""
    known = [value for value in values if value is not None]
    if not known:
        return {}
    return {f"{'median' if rank == 50 else rank_name(rank)}_{name}": percentile(known, rank) for rank in ranks}


def distribution(name: str, values: Sequence[float | None], ranks: Sequence[float]) -> dict[str, float | None]:
    """``mean_NAME``, ``median_NAME``, ``std_NAME`` (of the population, as vLLM has it) and percentiles of the values
    that there are; None without any."""
    known = [value for value in values if value is not None]
    found: dict[str, float | None] = {
        f"mean_{name}": statistics.fmean(known) if known else None,
        f"median_{name}": statistics.median(known) if known else None,
        f"std_{name}": statistics.pstdev(known) if known else None,
    }
    return found | {f"{rank_name(rank)}_{name}": percentile(known, rank) if known else None for rank in ranks}
