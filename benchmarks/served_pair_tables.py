"""What ``benchmarks/served_pair.py`` found, for people: a line an arm and a load, and the tails where requests arrive
at random."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

_TAILS = ("ttft_ms", "tpot_ms", "itl_ms", "e2el_ms")


def show(cells: list[dict[str, Any]], console: Console) -> None:
    """The tables. Quartiles stand below their median, the worst prompt below the median speed-up."""
    columns = ("load", "TPOT\nms", "TTFT\nms", "tokens\n/s", "tokens\n/step", "ac-\ncepted", "speed\nup", "differ")
    table = Table("arm", *columns, box=SIMPLE_HEAD, show_lines=True, pad_edge=False, padding=(0, 1, 0, 0))
    for cell in cells:
        table.add_row(
            cell["arm"].replace("_", "\n"),
            cell["load"],
            "{}\n{}-\n{}".format(*_spread(cell, "tpot_ms", ".1f")),
            _number(cell.get("median_ttft_ms"), ".0f"),
            _number(cell["output_throughput"], ".1f"),
            _number(cell.get("mean_acceptance_length"), ".2f"),
            _number(cell.get("acceptance_rate"), ".0%"),
            _speed_up(cell),
            str(len(cell["different"])) if "different" in cell else f"({cell['unlike_target_alone']})",
        )
    console.print(table)
    for cell in cells:
        for name in ("dragoman_over_transformers", "dragoman_over_assisted"):
            if f"median_{name}" in cell:
                median, low, high = _spread(cell, name, ".2f")
                words = f"{name.replace('_', ' ')}: {median} ({low} to {high}), worst {cell[f'worst_{name}']:.2f}"
                console.print(words, highlight=False)
    if any(cell.get("rate") for cell in cells):
        console.print(_tails(cells))


def _tails(cells: list[dict[str, Any]]) -> Table:
    names = (name.removesuffix("_ms").upper() for name in _TAILS)
    table = Table("arm", "load", "", *names, "goodput\n1/s", box=SIMPLE_HEAD, show_lines=True)
    for cell in cells:
        if cell.get("rate"):
            ranks = ("median", "p90", "p99")
            values = ["\n".join(_number(cell.get(f"{rank}_{name}"), ".1f") for rank in ranks) for name in _TAILS]
            goodput = _number(cell.get("request_goodput"), ".2f")
            table.add_row(cell["arm"].replace("_", "\n"), cell["load"], "p50\np90\np99", *values, goodput)
    return table


def _spread(cell: dict[str, Any], name: str, form: str) -> list[str]:
    """Median and quartiles."""
    return [_number(cell.get(f"{rank}_{name}"), form) for rank in ("median", "p25", "p75")]


def _speed_up(cell: dict[str, Any]) -> str:
    if "median_speed_up" not in cell:
        return "-"
    return f"{cell['median_speed_up']:.2f}x\n≥ {cell['worst_speed_up']:.2f}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"
