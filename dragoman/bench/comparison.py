"""Two ways of serving the same requests, pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dragoman.bench.measurement import Measurement
from dragoman.bench.percentiles import percentiles


def ratios(name: str, values: Sequence[float | None]) -> dict[str, float]:
    """Median, quartiles and the worst of what is there."""
    found = percentiles(name, values, (50, 25, 75))
    return found | ({f"worst_{name}": min(value for value in values if value is not None)} if found else {})


def over(name: str, rows: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]]) -> dict[str, float]:
    """How much faster than ``base``, request by request: NAME of whole requests, tpot_NAME from the first token on."""
    pairs = list(zip(rows, base, strict=True))
    whole = [ratio(row["output_throughput"], other["output_throughput"]) for row, other in pairs]
    decoding = [ratio(other["tpot_ms"], row["tpot_ms"]) for row, other in pairs]
    return ratios(name, whole) | ratios(f"tpot_{name}", decoding)


def ratio(one: float | None, other: float | None) -> float | None:
    """None where it says nothing."""
    return one / other if one and other else None


def comparison_of(drafted: Sequence[Measurement], alone: Sequence[Measurement]) -> dict[str, Any]:
    """What drafters do for requests that were served with them and without; those of which one failed, or was not
    served any more, are left out. ``speed_ups``: of whole requests, in the order of asking."""
    by_number = {one.request.number: one for one in alone if not one.error}
    pairs = [
        (one, by_number[one.request.number])
        for one in sorted(drafted, key=lambda one: one.request.number)
        if not one.error and one.request.number in by_number
    ]
    rows, base = [one.row for one, _ in pairs], [other.row for _, other in pairs]
    return {
        "pairs": len(pairs),
        "identical_texts": sum(one.text == other.text for one, other in pairs),
        **over("speed_up", rows, base),
        "speed_ups": [
            ratio(one["output_throughput"], other["output_throughput"]) for one, other in zip(rows, base, strict=True)
        ],
    }
