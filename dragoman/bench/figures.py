"""Figures of many requests, under the names of `vllm bench serve`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Final

from dragoman.bench.goal import Goal
from dragoman.bench.measurement import Measurement
from dragoman.bench.percentiles import distribution

#: Latencies by vLLM's short names, in its order.
METRICS: Final = {
    "ttft": "Time to First Token",
    "tpot": "Time per Output Token (excl. 1st token)",
    "itl": "Inter-token Latency",
    "e2el": "End-to-end Latency",
}


def throughput(rows: Sequence[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Of requests, of whomever, which took so many seconds together."""
    tokens = sum(row["output_tokens"] for row in rows)
    return {
        "duration": seconds,
        "completed": len(rows),
        "total_output_tokens": tokens,
        "request_throughput": len(rows) / seconds,
        "output_throughput": tokens / seconds,
    }


def latencies(
    measured: Sequence[Measurement], *, metrics: Sequence[str] = tuple(METRICS), ranks: Sequence[float] = (99,)
) -> dict[str, float | None]:
    """Mean, median, deviation and percentiles, in milliseconds, of the requests that were answered."""
    answered = [one for one in measured if not one.error]
    figures: dict[str, float | None] = {}
    for metric in metrics:
        if metric == "itl":
            values: list[float | None] = [gap * 1000 for one in answered for gap in one.itls]
        else:
            values = [one.row[f"{metric}_ms"] for one in answered]
        figures |= distribution(f"{metric}_ms", values, ranks)
    return figures


def figures_of(
    measured: Sequence[Measurement],
    seconds: float,
    *,
    goal: Goal,
    metrics: Sequence[str] = tuple(METRICS),
    ranks: Sequence[float] = (99,),
) -> dict[str, Any]:
    """All figures of requests that took so many seconds together. ``request_goodput`` is None without a goal."""
    answered = [one for one in measured if not one.error]
    rows = [one.row for one in answered]
    tokens_read = sum(one.prompt_tokens for one in answered)
    figures = throughput(rows, seconds)
    return {
        **figures,
        "failed": len(measured) - len(answered),
        "total_input_tokens": tokens_read,
        "total_token_throughput": (tokens_read + figures["total_output_tokens"]) / seconds,
        "request_goodput": sum(goal.kept(row) for row in rows) / seconds if goal.given else None,
        **latencies(answered, metrics=metrics, ranks=ranks),
        **speculation_figures(answered),
    }


def speculation_figures(measured: Sequence[Measurement]) -> dict[str, Any]:
    """What drafts did, under vLLM's names; {} if no answer tells. The rate is in per cent, as there.

    ``spec_decode_num_drafts``: verify steps, also those that had no draft token. The acceptance length counts the bonus
    token of each.
    """
    told = [one.speculation for one in measured if one.speculation is not None]
    steps = sum(one.steps for one in told)
    if not steps:
        return {}
    drafts, accepted = sum(one.draft_tokens for one in told), sum(one.accepted_tokens for one in told)
    positions = zip_longest(*(one.accepted_tokens_per_pos for one in told), fillvalue=0)
    return {
        "spec_decode_acceptance_rate": 100 * accepted / drafts if drafts else None,
        "spec_decode_acceptance_length": sum(one.committed_tokens for one in told) / steps,
        "spec_decode_num_drafts": steps,
        "spec_decode_draft_tokens": drafts,
        "spec_decode_accepted_tokens": accepted,
        "spec_decode_per_position_acceptance_rates": [sum(counts) / steps for counts in positions],
    }


def details_of(measured: Sequence[Measurement]) -> dict[str, Any]:
    """Request by request, as vLLM's --save-detailed has them (seconds), without any text."""
    return {
        "input_lens": [one.prompt_tokens for one in measured],
        "output_lens": [one.output_tokens for one in measured],
        "start_times": [one.started for one in measured],
        "ttfts": [one.ttft for one in measured],
        "itls": [one.itls for one in measured],
        "latencies": [one.e2el for one in measured],
        "errors": [one.error for one in measured],
    }
