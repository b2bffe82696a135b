"""The wide-area bench's own sums: medians, the best of each kind, and what its table says."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pytest
from rich.console import Console

from benchmarks.plans import ADAPTIVE, ALONE, ARMS, plan_of, plan_options
from benchmarks.wide_area import show, summary
from benchmarks.wide_area_figures import below, main
from benchmarks.wide_area_pair import IN_TLS
from speculation.errors import InputError

SHOWN = ["synchronous_2", "synchronous_4", "fixed_4_8_0", ADAPTIVE]


def cell(round_trip: float, *ups: float, identical: bool = True) -> dict[str, Any]:
    arms = {arm: {"speed_up": up, "bytes_per_token": 100 * up} for arm, up in zip(SHOWN, ups, strict=True)}
    return {"round_trip_ms": round_trip, "identical": identical, ALONE: {}, **arms}


CELLS = [
    cell(40, 0.5, 0.6, 1.4, 1.6),
    cell(40, 0.7, 0.6, 1.2, 1.2),
    cell(40, 0.6, 0.9, 1.3, 1.5, identical=False),
    cell(0, 1.5, 1.2, 1.8, 1.9),
]


def test_medians_over_prompts_and_the_best_of_each_kind():
    none, forty = summary(CELLS, SHOWN)
    assert (none["round_trip_ms"], forty["round_trip_ms"]) == (0, 40)
    assert (forty["synchronous_2"], forty["synchronous_4"], forty["synchronous"]) == (0.6, 0.6, 0.6)
    assert none["synchronous"] == 1.5 and forty["fixed"] == 1.3
    assert (forty[ADAPTIVE], forty["worst"], forty["bytes_per_token"]) == (1.5, 1.2, 150)
    assert none["identical"] and not forty["identical"], "one text that differs is told"


def test_quartiles_and_what_tls_costs_are_prompt_by_prompt():
    arms = [ADAPTIVE, ADAPTIVE + IN_TLS]
    cells = [
        {
            "round_trip_ms": 0,
            "identical": True,
            ADAPTIVE: {"speed_up": up, "tpot_ms": plain, "bytes_per_token": 1},
            ADAPTIVE + IN_TLS: {"speed_up": up, "tpot_ms": plain * slower, "bytes_per_token": 1},
        }
        for up, plain, slower in (
            (1.0, 10.0, 1.25),
            (2.0, 20.0, 1.0),
            (3.0, 5.0, 1.25),
            (4.0, 8.0, 1.25),
            (5.0, 9.0, 1.0),
        )
    ]
    [row] = summary(cells, arms)
    assert row["quartiles"][ADAPTIVE] == (2.0, 4.0) and row[ADAPTIVE] == 3.0
    assert row[f"in_tls_{ADAPTIVE}"] == pytest.approx((0.8, 0.8, 1.0))
    shown = io.StringIO()
    show([row], arms, Console(file=shown, width=80))
    assert "2.00-4.00" in shown.getvalue()
    assert "adaptive in TLS, 0 ms: 0.800 (0.800 - 1.000) of the tokens/s of plaintext" in shown.getvalue()


def test_every_figure_is_readable_in_a_terminal_of_80_columns():
    shown = io.StringIO()
    rows = summary([{**CELLS[0], **{arm: CELLS[0][ADAPTIVE] for arm in ARMS}}], list(ARMS))
    show(rows * 5, list(ARMS), Console(file=shown, width=80))
    assert "…" not in shown.getvalue() and shown.getvalue().count("1.60x") == 5 * (len(ARMS) + 1)
    show(summary(CELLS, SHOWN), SHOWN, Console(file=shown, width=80))
    assert "NO" in shown.getvalue()


def test_arms_are_plans():
    synchronous = plan_of("synchronous_4")
    assert synchronous is not None and (synchronous.width, synchronous.lookahead, synchronous.span_tokens) == (4, 4, 4)
    assert synchronous.patience > 1 and synchronous.alternatives == 0
    assert plan_of(ADAPTIVE) is None and "--adaptive" in plan_options(ADAPTIVE)
    assert {"--no-adaptive", "--no-lookup", "--width=4"} <= set(plan_options("synchronous_4"))
    with pytest.raises(InputError, match="arm='fixed_4'"):
        plan_of("fixed_4")


def test_pictures_name_arms_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Those that were measured in TLS as well are not in the picture."""
    arm = {"speed_up": 1.2, "steps": 9, "accepted_tokens_per_pos": [5, 3], "wasted_draft_share": 0.4}
    arm |= {"tpot_ms": 20.0, "output_tokens": 30, "plans": [[0.0, 8, 16]]}
    arms = {name: arm for name in (*ARMS, *(name + IN_TLS for name in ARMS))}
    cells = [{"round_trip_ms": trip, "identical": True, ALONE: {"tpot_ms": 30.0}, **arms} for trip in (0, 40)]
    measured, picture = tmp_path / "measured.json", tmp_path / "picture.svg"
    measured.write_text(json.dumps({"cells": cells, "setup": {}}))
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")
    main(measured, picture)
    words = re.findall(r"<text[^>]*>([^<]+)</text>", picture.read_text("utf-8"))
    assert "draft 2, send, wait" in words and "adaptive" in words
    assert [each for each in words if "_" in each] == []


def test_a_legend_covers_no_curve():
    figure, axes = plt.subplots(figsize=(6, 5), layout="constrained")
    axes.plot([0, 1], [0, 1], label="adaptive")
    below(axes, columns=2)
    figure.canvas.draw()
    legend = axes.get_legend()
    assert legend is not None
    assert not legend.get_window_extent().overlaps(axes.get_window_extent())
    plt.close(figure)
