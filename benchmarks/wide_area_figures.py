"""Draws what ``benchmarks/wide_area.py`` measured: speed-up against round trip with the cost model's curve, the plan
over time, acceptance by position, and the share of draft tokens verified in vain.

    python -m benchmarks.wide_area_figures wide_area.json --output docs/wide_area.png
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import typer

from benchmarks.command import run_command
from benchmarks.plans import ADAPTIVE, DRAFTER_ONLY
from benchmarks.results import read_results
from benchmarks.wide_area_pair import IN_TLS
from speculation.planning.best_plan import best_plan
from speculation.planning.cost_model import PairCosts, predict

matplotlib.use("Agg")
import itertools

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

#: Acceptance rates told apart by the curve.
POSITIONS = 4
Cells = list[dict[str, Any]]


def rates_by_position(cells: Cells, arm: str) -> list[float]:
    """Chance that the draft token at each position of a step agrees, given that all before it did.

    ``arm``: one whose steps have draft tokens at every position counted, as synchronous ones have.
    """
    agreed = [sum(cell[arm]["steps"] for cell in cells)]
    for position in range(max(len(cell[arm]["accepted_tokens_per_pos"]) for cell in cells)):
        per_cell = [cell[arm]["accepted_tokens_per_pos"] for cell in cells]
        agreed.append(sum(counts[position] for counts in per_cell if position < len(counts)))
    return [after / before for before, after in itertools.pairwise(agreed) if before]


def measured_costs(cells: Cells, setup: dict[str, Any]) -> PairCosts | None:
    """For the curve, from the widest synchronous arm; None if there is none."""
    widths = [int(arm.removeprefix("synchronous_")) for arm in cells[0] if arm.startswith("synchronous_")]
    if not widths or not setup.get("token"):
        return None
    rates = rates_by_position(cells, f"synchronous_{max(widths)}")[:POSITIONS]
    step = statistics.median(cell["target_alone"]["tpot_ms"] for cell in cells) / 1000
    return PairCosts(
        step=step,
        step_per_token=setup["step_per_token"],
        draft_token=setup["token"],
        round_trip=0.0,
        acceptance=tuple(rates),
    )


def arm_in_words(arm: str) -> str:
    """The names that ``benchmarks/plans.py`` gives: synchronous_W, fixed_WIDTH_LOOKAHEAD_ALTERNATIVES."""
    kind, *numbers = arm.split("_")
    if kind == "synchronous":
        return f"draft {numbers[0]}, send, wait"
    if kind == "fixed":
        width, lookahead, alternatives = numbers
        return f"fixed: {width} a step, {lookahead} ahead, {alternatives} alternatives"
    return {ADAPTIVE: "adaptive", DRAFTER_ONLY: "adaptive, no prompt lookup"}.get(arm, arm)


def below(axes: Axes, *, columns: int, title: str | None = None) -> None:
    """The legend under the axes, where it covers no curve."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            fontsize=8,
            title=title,
            title_fontsize=8,
            ncols=columns,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.14),
            frameon=False,
        )


def of_trip(cells: Cells, round_trip: float) -> Cells:
    return [cell for cell in cells if cell["round_trip_ms"] == round_trip]


def draw_speed_up(axes: Axes, cells: Cells, setup: dict[str, Any], arms: list[str]) -> None:
    trips = sorted({cell["round_trip_ms"] for cell in cells})
    groups = {
        "adaptive": [arm for arm in arms if arm == ADAPTIVE],
        "adaptive, drafter alone (no prompt lookup)": [arm for arm in arms if arm == DRAFTER_ONLY],
        "best fixed plan": [arm for arm in arms if arm.startswith("fixed_")],
        "best of draft, send, wait": [arm for arm in arms if arm.startswith("synchronous_")],
    }
    for (label, members), marker in zip(groups.items(), "oDs^", strict=True):
        if members:
            medians = [
                max(statistics.median(cell[arm]["speed_up"] for cell in of_trip(cells, trip)) for arm in members)
                for trip in trips
            ]
            axes.plot(trips, medians, marker=marker, label=label)
    costs = measured_costs(cells, setup)
    if costs is not None:
        fine = [trips[0] + (trips[-1] - trips[0]) * part / 40 for part in range(41)]
        curve = []
        for trip in fine:
            there = PairCosts(
                step=costs.step,
                step_per_token=costs.step_per_token,
                draft_token=costs.draft_token,
                round_trip=trip / 1000,
                acceptance=costs.acceptance,
            )
            curve.append(predict(there, best_plan(there)).speed_up)
        axes.plot(fine, curve, "--", color="grey", label="cost model: one branch, no lookup")
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set(xlabel="round trip, ms", ylabel="speed-up over the target alone", title="Speed-up", ylim=(0, None))
    below(axes, columns=2)


def draw_plan(axes: Axes, cells: Cells) -> None:
    """Of the first prompt, one line for each round trip."""
    for trip in sorted({cell["round_trip_ms"] for cell in cells}):
        cell = of_trip(cells, trip)[0][ADAPTIVE]
        end = cell["tpot_ms"] * cell["output_tokens"] / 1000
        times = [change[0] for change in cell["plans"]] + [end]
        ahead = [change[2] for change in cell["plans"]]
        axes.step(times, [*ahead, ahead[-1]], where="post", label=f"{trip:.0f} ms")
    title = "How far the drafter may run ahead (first prompt)"
    axes.set(xlabel="seconds since the first token", ylabel="lookahead, draft tokens", title=title, ylim=(0, None))
    below(axes, columns=5, title="round trip")


def draw_positions(axes: Axes, cells: Cells, arms: list[str]) -> None:
    for arm in arms:
        if arm.startswith("synchronous_"):
            rates = rates_by_position(cells, arm)[: int(arm.removeprefix("synchronous_"))]
            axes.plot(range(1, len(rates) + 1), rates, marker="o", label=arm_in_words(arm))
    axes.set(
        xlabel="position of the draft token in its step",
        ylabel="acceptance rate, all before accepted",
        title="Acceptance by position (draft, send, wait)",
        ylim=(0, 1),
    )
    below(axes, columns=3)


def draw_waste(axes: Axes, cells: Cells, arms: list[str]) -> None:
    trips = sorted({cell["round_trip_ms"] for cell in cells})
    for arm in arms:
        shares = []
        for trip in trips:
            wasted = [cell[arm]["wasted_draft_share"] for cell in of_trip(cells, trip)]
            shares.append(statistics.median(share for share in wasted if share is not None) if any(wasted) else None)
        kept = [(trip, share) for trip, share in zip(trips, shares, strict=True) if share is not None]
        bold = arm == ADAPTIVE
        axes.plot(*zip(*kept, strict=True), marker=".", linewidth=2.2 if bold else 0.9, label=arm_in_words(arm))
    axes.set(xlabel="round trip, ms", ylabel="share of verified", title="Draft tokens that were refused", ylim=(0, 1))
    below(axes, columns=2)


def main(
    measured: Annotated[Path, typer.Argument(help="JSON that benchmarks.wide_area wrote")],
    output: Annotated[Path, typer.Option(help="PNG or SVG")],
) -> None:
    """Draw."""
    found = read_results(measured, field="measured", holds="cells", made_by="benchmarks.wide_area")
    # What TLS costs is a table of its own.
    cells = [{arm: of_arm for arm, of_arm in cell.items() if not arm.endswith(IN_TLS)} for cell in found["cells"]]
    setup = found["setup"]
    arms = [arm for arm in cells[0] if isinstance(cells[0][arm], dict) and arm != "target_alone"]
    figure, axes = plt.subplots(2, 2, figsize=(12, 10), layout="constrained")
    draw_speed_up(axes[0, 0], cells, setup, arms)
    draw_plan(axes[0, 1], cells)
    draw_positions(axes[1, 0], cells, arms)
    draw_waste(axes[1, 1], cells, arms)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110)


if __name__ == "__main__":
    run_command(main)
