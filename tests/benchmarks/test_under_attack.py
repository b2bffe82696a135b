"""What a hostile drafter costs: figures with it over figures without, and a text that differs is told."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from benchmarks.hostile_drafters import Attack
from benchmarks.under_attack import Period, row_of, show


def test_a_row_compares_the_times_with_and_without_an_attack():
    calm = [Period(gaps=[0.010] * 50, tokens=100, seconds=2.0), Period(gaps=[0.010] * 50, tokens=100, seconds=2.0)]
    attacked = [Period(gaps=[0.010] * 90 + [0.030] * 10, tokens=180, seconds=4.0, differing=1, said="dialled in once")]
    row = row_of(Attack.FLOOD, calm, attacked)
    assert row["calm"]["median_gap_ms"] == row["attacked"]["median_gap_ms"] == pytest.approx(10)
    assert row["attacked"]["p99_gap_ms"] == pytest.approx(30)
    assert (row["calm"]["output_throughput"], row["attacked"]["output_throughput"]) == (50.0, 45.0)
    assert row["differing"] == 1 and row["said"] == "dialled in once"
    shown = io.StringIO()
    show([row], Console(file=shown, width=80))
    assert "…" not in shown.getvalue()
    [line] = [line for line in shown.getvalue().splitlines() if "flood" in line]
    assert line.replace("│", " ").split() == ["flood", "10.0", "ms", "10.0", "ms", "1.00", "3.00", "0.90", "NO"]
