"""`dragoman plan`: the cost model on paper."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from dragoman import plan
from dragoman.cli import app
from speculation.errors import InputError
from speculation.planning.cost_model import PairCosts
from transport.durations import parse_duration, show_duration

FAST = ["plan", "--target-step=25ms", "--draft-token=3ms", "--acceptance=0.62"]


def test_json_has_plan_prediction_and_limits():
    done = CliRunner().invoke(app, [*FAST, "--rtt=40ms", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["plan"]["width"] > 0
    assert 1.2 < found["prediction"]["speed_up"] < 1.6
    assert found["synchronous"]["speed_up"] < 1 < found["prediction"]["speed_up"]
    assert 40 < found["break_even_round_trip_ms"] < 2000


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_table_fits_and_marks_what_was_asked(width: int):
    console = Console(width=width, file=io.StringIO())
    with console.capture() as capture:
        plan.show(PairCosts(0.025, 0.0002, 0.003, 0.04, (0.62,)), console)
    shown = capture.get()
    assert "best plan" in shown and "it pays up to a round trip of" in shown
    assert "40 ms" in shown and "…" not in shown


def test_hopeless_pairs_are_told_to_leave_it():
    done = CliRunner().invoke(app, ["plan", "--target-step=5ms", "--draft-token=500ms", "--acceptance=0.1"])
    assert "no speculation" in done.output and "never pays" in done.output


def test_plot_is_written(tmp_path: Path):
    done = CliRunner().invoke(app, [*FAST, f"--plot={tmp_path / 'plan.png'}"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "option, field",
    [
        ("--rtt=40", "rtt"),
        ("--rtt=-4ms", "rtt"),
        ("--rtt=nanms", "rtt"),
        ("--draft-token=soon", "draft-token"),
        ("--acceptance=1.2", "acceptance"),
        ("--target-step=0ms", "step"),
        ("--plot=plan.gif", "plot"),
        ("--plot=/no/such/folder/plan.png", "plot"),
    ],
)
def test_bad_input_names_the_field(option: str, field: str):
    error = CliRunner().invoke(app, [*FAST, option]).exception
    assert isinstance(error, InputError) and field in str(error)


@pytest.mark.parametrize(
    "text, seconds", [("7d", 604800.0), ("40ms", 0.04), (" 1.5 s", 1.5), ("200us", 0.0002), ("0ms", 0.0), ("5m", 300.0)]
)
def test_durations(text: str, seconds: float):
    assert parse_duration("x", text) == pytest.approx(seconds)
    assert show_duration(0.04) == "40 ms" and show_duration(2.0) == "2.00 s"
