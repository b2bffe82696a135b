"""What the processes of a soak held over time, drawn from the JSON that ``benchmarks.soak`` wrote.

python -m benchmarks.soak_figures soak.json --output soak.png
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import typer

from benchmarks.command import run_command
from benchmarks.results import read_results
from benchmarks.soak_resources import GROWTH

_TITLES = {
    "memory": "Resident memory, MiB",
    "files": "File descriptors",
    "threads": "Threads",
    "tasks": "asyncio tasks",
}


def draw(found: dict[str, Any], output: Path) -> None:
    """A panel for each resource, a line for each process."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 7), layout="constrained", sharex=True)
    processes = list(dict.fromkeys(sample["process"] for sample in found["samples"]))
    for place, resource in zip(axes.flat, GROWTH, strict=True):
        scale = 1 << 20 if resource == "memory" else 1
        for number, process in enumerate(processes):
            mine = [one for one in found["samples"] if one["process"] == process and one[resource] is not None]
            minutes, held = [one["at"] / 60 for one in mine], [one[resource] / scale for one in mine]
            place.plot(minutes, held, color=f"C{number}", linewidth=1.2, label=process)
        place.set(title=_TITLES[resource], ylim=(0, None))
        place.grid(alpha=0.3)
    for place in axes[1]:
        place.set_xlabel("minutes")
    axes[0, 0].legend(loc="best", fontsize=9)
    texts, faults = found["texts"], sum(found["faults"].values())
    figure.suptitle(
        f"{found['setup']['minutes']:g} minutes, {faults} faults, {texts['texts']} whole texts: "
        f"{len(texts['different'])} differ, {len(texts['lost'])} lost"
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110)
    plt.close(figure)


def main(
    measured: Annotated[Path, typer.Argument(help="JSON that benchmarks.soak wrote")],
    output: Annotated[Path, typer.Option(help="PNG or SVG")],
) -> None:
    """Draw."""
    draw(read_results(measured, field="measured", holds="texts", made_by="benchmarks.soak"), output)


if __name__ == "__main__":
    run_command(main)
