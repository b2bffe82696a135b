"""Edge and cloud, emulated on one machine: the target alone on core 0, the drafter on core 1, a distance between them.

For every round trip and prompt: the target alone, synchronous speculation of some fixed widths, overlapped speculation
with some fixed plans, and the adaptive plan, in turn prompt by prompt. What counts are the ratios to the target alone.
``--replay`` takes recorded models of any speed instead of real ones (``benchmarks/replay.py``). Every arm has a target
and a drafter of its own, so choose arms (``--arm``) by the memory there is. ``benchmarks/wide_area_figures.py`` draws.

    python -m benchmarks.wide_area --prompts prompts.jsonl --round-trip 0 --round-trip 40 --output wide_area.json
    python -m benchmarks.wide_area --replay recording.json --step 0.025 --token 0.003 --output wide_area_fast.json
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.certificates import Certificates
from benchmarks.command import run_command
from benchmarks.fault_proxy import LinkConditions
from benchmarks.figures import percentiles
from benchmarks.namespaces import two_hosts
from benchmarks.plans import ADAPTIVE, ALONE, ARMS, plan_of
from benchmarks.prompts import load_prompts
from benchmarks.recording import load
from benchmarks.results import write_results
from benchmarks.wide_area_pair import IN_TLS, Setup, arm_of
from dragoman.demo import title
from speculation.errors import InputError
from speculation.protocol.completion import Completion
from speculation.protocol.messages import Prompt


def figures(completion: Completion) -> dict[str, Any]:
    """Of one text, from its first chunk on: prefill is the same for all arms."""
    stats = completion.stats
    return {
        "output_tokens": completion.completion_tokens,
        "tpot_ms": (completion.tpot or 0.0) * 1000,
        "mean_acceptance_length": completion.tokens_per_step,
        "acceptance_rate": completion.acceptance_rate,
        "wasted_draft_share": 1 - stats.accepted_tokens / stats.draft_tokens if stats.draft_tokens else None,
        "accepted_tokens_per_pos": list(stats.accepted_tokens_per_pos),
        "steps": stats.steps,
        "bytes_per_token": (stats.bytes_up + stats.bytes_down) / max(1, completion.completion_tokens),
        "stale_spans": stats.stale_spans,
        "plans": [
            [change.seconds, change.plan.width, change.plan.lookahead, change.plan.alternatives]
            for change in stats.plans
        ],
    }


async def measure(
    setup: Setup, prompts: list[Prompt], round_trips: list[float], arms: list[str], console: Console
) -> list[dict[str, Any]]:
    """All cells. Prompt by prompt the arms take turns; the target alone is measured with every round trip anew.

    No text is drafted from what was written of the same prompt at another round trip.
    """
    cells = []
    async with contextlib.AsyncExitStack() as stack:
        certificates = Certificates(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "certs")
        running = {arm: await stack.enter_async_context(arm_of(setup, arm, certificates)) for arm in arms}
        alone_on = running[arms[0]].client
        warm_up = prompts[0]
        for arm in running.values():
            await arm.client.complete(warm_up, max_tokens=8)
        for round_trip in round_trips:
            for arm in running.values():
                arm.proxy.set(LinkConditions(round_trip / 2, 0.0, None))
            for number, prompt in enumerate(prompts):
                cell: dict[str, Any] = {"round_trip_ms": round_trip * 1000, "prompt": title(prompt)}
                alone = await alone_on.complete(prompt, max_tokens=setup.max_tokens, draft=False)
                cell[ALONE] = figures(alone)
                order = arms[number % len(arms) :] + arms[: number % len(arms)]
                texts = {ALONE: alone.data}
                for name in order:
                    completion = await running[name].client.complete(
                        prompt, max_tokens=setup.max_tokens, cache_salt=f"{round_trip}"
                    )
                    cell[name], texts[name] = figures(completion), completion.data
                    cell[name]["speed_up"] = cell[ALONE]["tpot_ms"] / cell[name]["tpot_ms"]
                cell["identical"] = len(set(texts.values())) == 1
                cells.append(cell)
                ups = {name: round(cell[name]["speed_up"], 2) for name in arms}
                console.print(f"{round_trip * 1000:.0f} ms, {title(prompt)[:32]}: {ups}", highlight=False)
    return cells


def summary(cells: list[dict[str, Any]], arms: list[str]) -> list[dict[str, Any]]:
    """Medians over the prompts, and the quartiles of each arm, per round trip."""
    rows = []
    for round_trip in sorted({cell["round_trip_ms"] for cell in cells}):
        of_trip = [cell for cell in cells if cell["round_trip_ms"] == round_trip]
        row: dict[str, Any] = {"round_trip_ms": round_trip, "quartiles": {}}
        for arm in arms:
            found = percentiles("", [cell[arm]["speed_up"] for cell in of_trip])
            row[arm], row["quartiles"][arm] = found["median_"], (found["p25_"], found["p75_"])
        synchronous = [row[arm] for arm in arms if arm.startswith("synchronous_")]
        row["synchronous"] = max(synchronous) if synchronous else None
        fixed = [row[arm] for arm in arms if arm.startswith("fixed_")]
        row["fixed"] = max(fixed) if fixed else None
        row["worst"] = min(cell[ADAPTIVE]["speed_up"] for cell in of_trip) if ADAPTIVE in arms else None
        row |= {f"in_tls_{arm}": in_tls(of_trip, arm) for arm in arms if arm + IN_TLS in arms}
        row["bytes_per_token"] = percentiles("", [cell[arms[-1]]["bytes_per_token"] for cell in of_trip])["median_"]
        row["identical"] = all(cell["identical"] for cell in of_trip)
        rows.append(row)
    return rows


def in_tls(cells: list[dict[str, Any]], arm: str) -> tuple[float, float, float]:
    """Tokens per second in TLS over those in plaintext, prompt by prompt: the median and the quartiles."""
    found = percentiles("", [cell[arm]["tpot_ms"] / cell[arm + IN_TLS]["tpot_ms"] for cell in cells])
    return found["median_"], found["p25_"], found["p75_"]


def show(rows: list[dict[str, Any]], arms: list[str], console: Console) -> None:
    """A line an arm, a column a round trip: nine arms beside each other have no room in a terminal."""
    table = Table("speed-up", *(f"{row['round_trip_ms']:.0f} ms" for row in rows))
    for arm in arms:
        table.add_row(arm, *(f"{row[arm]:.2f}x" for row in rows))
    if ADAPTIVE in arms:
        table.add_row(f"{ADAPTIVE}, worst prompt", *(f"{row['worst']:.2f}x" for row in rows))
    table.add_row("bytes per token", *(f"{row['bytes_per_token']:.0f}" for row in rows))
    table.add_row("same text", *("yes" if row["identical"] else "NO" for row in rows))
    console.print(table)
    table = Table("quartiles", *(f"{row['round_trip_ms']:.0f} ms" for row in rows))
    for arm in arms:
        table.add_row(arm, *("{:.2f}-{:.2f}".format(*row["quartiles"][arm]) for row in rows))
    console.print(table)
    for row in rows:
        for arm in arms:
            if f"in_tls_{arm}" in row:
                words = "{:.3f} ({:.3f} - {:.3f}) of the tokens/s of plaintext".format(*row[f"in_tls_{arm}"])
                console.print(f"{arm} in TLS, {row['round_trip_ms']:.0f} ms: {words}", highlight=False)


def main(
    target: str = "qwen2.5-coder-1.5b",
    drafter: Annotated[str, typer.Option(help="A model, lookup, wrong (never agrees), or absent")] = "smollm2-135m",
    prompts: Annotated[Path | None, typer.Option(help="JSONL with prompt or messages in each line")] = None,
    task: str = "",
    limit: int = 4,
    max_tokens: int = 64,
    round_trip: Annotated[list[int] | None, typer.Option(help="Milliseconds; may be repeated")] = None,
    arm: Annotated[
        list[str] | None, typer.Option(help=f"May be repeated; of {', '.join(ARMS)}  [default: all]")
    ] = None,
    replay: Annotated[Path | None, typer.Option(help="A recording, in place of the models")] = None,
    step: float = 0.025,
    token: Annotated[float, typer.Option(help="Seconds a draft token; of real models for the figures only")] = 0.003,
    step_per_token: Annotated[float, typer.Option(help="Seconds that one adds to a step; as before")] = 0.0002,
    device: Annotated[str, typer.Option(help="The target's; a CPU is one core")] = "cpu",
    drafter_device: Annotated[str, typer.Option(help="The same of the drafter")] = "cpu",
    tls: Annotated[bool, typer.Option(help="Each arm in mutual TLS as well, of the same prompts")] = False,
    namespaces: Annotated[
        bool, typer.Option(help="Put each side into a network namespace of its own; as root")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="Where the JSON goes  [default: standard output]")] = None,
) -> None:
    """Sweep."""
    console = Console(stderr=True)
    arms = list(arm or ARMS)
    for name in arms:
        plan_of(name)
    if tls and namespaces:
        raise InputError("tls", tls, "has certificates for loopback", remedy="leave out --tls or --namespaces")
    arms += [name + IN_TLS for name in arms] if tls else []
    if replay is None:
        asked = load_prompts(prompts, limit=limit, task=task)
    else:
        asked = [Prompt(text=str(number)) for number in range(min(limit, len(load(replay))))]
    trips = [trip / 1000 for trip in round_trip or (0, 10, 40, 80, 160)]
    with two_hosts() if namespaces else contextlib.nullcontext() as hosts:
        setup = Setup(
            target=target,
            drafter=drafter,
            replay=replay,
            step=step,
            token=token,
            step_per_token=step_per_token,
            max_tokens=max_tokens,
            device=device,
            drafter_device=drafter_device,
            hosts=hosts,
        )
        cells = asyncio.run(measure(setup, asked, trips, arms, console))
    rows = summary(cells, arms)
    show(rows, arms, console)
    write_results({"setup": asdict(setup), "summary": rows, "cells": cells}, output)


if __name__ == "__main__":
    run_command(main)
