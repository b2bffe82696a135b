"""--plot: how latencies are spread, and what drafters do for each request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dragoman.bench.measurement import Measurement
from dragoman.plot_file import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DRAFTED, _ALONE = ("with drafters", "#00796b"), ("without", "#b0a060")


def draw(result: dict[str, Any], measured: Sequence[Measurement], path: Path) -> None:
    """Distributions of TTFT and ITL, and with a comparison the ratios pair by pair. Raises InputError."""
    from matplotlib.figure import Figure

    compared = "compare" in result
    answered = [one for one in measured if not one.error]
    arms = [(_DRAFTED, [one for one in answered if one.request.draft])]
    if compared:
        arms.append((_ALONE, [one for one in answered if not one.request.draft]))
    figure = Figure(figsize=(12 if compared else 8, 3.6), layout="constrained")
    panels = list(figure.subplots(1, 3 if compared else 2))
    _spread(panels[0], [(arm, [one.ttft * 1000 for one in ones]) for arm, ones in arms], "TTFT, ms", "requests")
    gaps = [(arm, [gap * 1000 for one in ones for gap in one.itls]) for arm, ones in arms]
    _spread(panels[1], gaps, "ITL, ms", "chunks")
    if compared:
        _ratios(panels[2], result["compare"])
        panels[0].legend(frameon=False)
    told = result["max_concurrency"] or "any number"
    figure.suptitle(f"{result['model_id']}, {result['completed']} requests, {told} at once", fontsize=10)
    save_figure(figure, path)


def _spread(axes: Axes, arms: Sequence[tuple[tuple[str, str], list[float]]], label: str, counted: str) -> None:
    from matplotlib.ticker import MaxNLocator

    everything = [value for _, values in arms for value in values]
    bounds = (0.0, max(everything, default=0.0) * 1.02 or 1.0)
    for (name, colour), values in arms:
        axes.hist(values, bins=30, range=bounds, color=colour, alpha=0.7, label=name)
    axes.set_xlabel(label)
    axes.set_ylabel(counted)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def _ratios(axes: Axes, found: dict[str, Any]) -> None:
    known = sorted(value for value in found["speed_ups"] if value is not None)
    axes.bar(range(len(known)), known, color=_DRAFTED[1])
    axes.axhline(1.0, color="grey", lw=1)
    if "median_speed_up" in found:
        axes.axhline(found["median_speed_up"], color="black", lw=1, ls="--")
        axes.set_title(f"median {found['median_speed_up']:.2f}x", fontsize=10)
    axes.set_xlabel("requests, by ratio")
    axes.set_xticks([])
    axes.set_ylabel("speed-up over the target alone")
