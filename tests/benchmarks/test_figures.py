"""Figures of requests and arms: percentiles, goodput, speed-ups."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from benchmarks.clients import Load
from benchmarks.figures import Served, of_arm, of_rows, percentiles
from benchmarks.pair_processes import Side
from benchmarks.served_pair import ALONE, ASSISTED, DRAFTED, LOOKUP, Setup, check, summary
from benchmarks.served_pair_tables import show
from dragoman.bench.comparison import over
from dragoman.bench.goal import Goal
from speculation.errors import InputError
from speculation.protocol.completion import Completion
from speculation.protocol.generation import SpeculationStats


def served(tpot: float, *, ttft: float = 0.1, tokens: int = 11, steps: int = 5, accepted: int = 6) -> Served:
    """One token comes first, the others evenly."""
    completion = Completion(
        token_ids=[1] * tokens,
        ttft=ttft,
        e2el=ttft + (tokens - 1) * tpot,
        first_tokens=1,
        stats=SpeculationStats(steps=steps, draft_tokens=2 * accepted, accepted_tokens=accepted),
    )
    return Served(completion, [ttft + number * tpot for number in range(tokens)])


def test_an_arm_has_the_percentiles_of_its_requests():
    arm = of_arm([served(0.01), served(0.02), served(0.03)], 2.0, Goal())
    assert arm["median_tpot_ms"] == pytest.approx(20) and arm["p25_tpot_ms"] == pytest.approx(15)
    assert arm["p99_tpot_ms"] == pytest.approx(29.8)
    assert arm["median_ttft_ms"] == pytest.approx(100) and arm["median_itl_ms"] == pytest.approx(20)
    assert (arm["completed"], arm["total_output_tokens"], arm["output_throughput"]) == (3, 33, 16.5)
    assert arm["request_throughput"] == arm["request_goodput"] == 1.5
    assert arm["mean_acceptance_length"] == pytest.approx(2.2) and arm["acceptance_rate"] == 0.5


def test_goodput_counts_requests_that_keep_both_goals():
    requests = [served(0.01), served(0.03), served(0.01, ttft=0.5)]
    assert of_arm(requests, 2.0, Goal(tpot_ms=20, ttft_ms=200))["request_goodput"] == 0.5
    assert of_arm(requests, 2.0, Goal(tpot_ms=20))["request_goodput"] == 1.0
    # A text of one chunk has no time per token to break a goal with.
    assert of_arm([served(0.0, tokens=1)], 1.0, Goal(tpot_ms=1))["request_goodput"] == 1.0


def test_what_is_not_known_is_left_out():
    assert percentiles("x", [None, 3.0]) == {"p25_x": 3, "median_x": 3, "p75_x": 3, "p90_x": 3, "p99_x": 3}
    assert percentiles("x", [None]) == {}
    assert of_arm([served(0.1, accepted=0)], 1.0, Goal())["acceptance_rate"] is None


def row(throughput: float, tpot: float | None) -> dict[str, Any]:
    return {"output_throughput": throughput, "tpot_ms": tpot, "ttft_ms": 1.0, "e2el_ms": 9.0, "output_tokens": 8}


def test_speed_ups_are_ratios_request_by_request():
    base = [row(10, 100), row(10, 50), row(20, 100)]
    found = over("speed_up", [row(20, 50), row(30, 10), row(10, 200)], base)
    assert found["median_speed_up"] == 2 and found["worst_speed_up"] == 0.5 and found["p75_speed_up"] == 2.5
    assert found["median_tpot_speed_up"] == 2 and found["worst_tpot_speed_up"] == 0.5
    assert "median_tpot_speed_up" not in over("speed_up", [row(1, None)], [row(1, 10)])


def cell(arm: str, load: Load, **more: Any) -> dict[str, Any]:
    arm_figures = of_arm([served(0.0123), served(0.0456)], 2.0, Goal())
    return {"arm": arm, "load": load.name, "rate": load.rate, "different": [], **arm_figures, **more}


UPS = over("speed_up", [row(20, 50), row(15, 10)], [row(10, 100), row(10, 100)])
CELLS = [
    cell(ALONE, Load(16)),
    cell(LOOKUP, Load(16), **UPS),
    cell(DRAFTED, Load(16), **UPS, different=[3]),
    cell(DRAFTED, Load(rate=2.5), **UPS),
]


def test_the_tables_show_speed_and_differences():
    assisted = {"arm": ASSISTED, "load": "1", **of_rows([row(10, 100)], 1.0), "unlike_target_alone": 5}
    assisted |= over("dragoman_over_assisted", [row(30, 20)], [row(10, 100)])
    shown = io.StringIO()
    show([*CELLS, assisted], Console(file=shown, width=80))
    text = shown.getvalue()
    assert "dragoman over assisted: 3.00" in text.replace("\n", " ")
    assert "…" not in text and "1.75x" in text and "≥ 1.50" in text and "(5)" in text
    assert "goodput" in text and "2.5/s" in text


def test_one_text_that_differs_is_told():
    assert summary(CELLS[:2]) == {"identical": True, "texts": 4, "different": 0}
    assert summary(CELLS) == {"identical": False, "texts": 8, "different": 1}


def setup(**more: Any) -> Setup:
    known: dict[str, Any] = {"drafters": ["d"], "temperature": 0.0, "transformers": True}
    return Setup(
        target="t", verifier=Side(), drafting=Side(), loads=[Load()], max_tokens=8, goal=Goal(), **(known | more)
    )


def test_arms_that_cannot_be_compared_are_refused():
    check(setup())
    check(setup(temperature=0.7, transformers=False))
    with pytest.raises(InputError, match=r"temperature=0\.7"):
        check(setup(temperature=0.7))
    with pytest.raises(InputError, match="drafter='lookup'"):
        check(setup(drafters=["lookup", "d"]))


def test_options_of_the_user_go_last_and_overrule():
    side = Side("cuda", "bfloat16", threads=3, sessions=100, options=("--prefix-caching",))
    arguments = ["--no-prefix-caching", *side.arguments("m")]
    assert arguments[-1] == "--prefix-caching" and {"--model=m", "--max-sessions=100", "--threads=3"} <= set(arguments)
