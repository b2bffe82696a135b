"""An hour of mixed load on a fleet whose processes are killed, stopped and held at random.

Every text is compared with that of the target alone, every process that is spared is watched. Exit code 1 if a text
differs, stands still or is lost, if a process ends by itself or does not end when it is told to, if a session is left,
or if memory, file descriptors, threads or tasks grow.

    python -m benchmarks.soak --minutes 60 --output soak.json --plot soak.png
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.command import run_command
from benchmarks.pair_processes import Side
from benchmarks.prompts import load_prompts
from benchmarks.results import write_results
from benchmarks.soak_fleet import SoakFleet, soak_fleet
from benchmarks.soak_resources import CLIENTS, Watch, growth
from dragoman.client import Client
from dragoman.fleet_client import FleetClient
from dragoman.processes import run_with_children
from dragoman.transcript import TextOptions
from speculation.errors import DragomanError
from speculation.protocol.messages import Prompt
from speculation.sampling.params import Rule, SamplingParams

#: Of every kind there are texts whose bytes a seed decides.
_SAMPLINGS = (
    SamplingParams(),
    SamplingParams(temperature=0.8, seed=3),
    SamplingParams(temperature=1.2, top_p=0.9, seed=4),
)
#: A client leaves before the end of so many texts, and wants no drafts for so many.
_LEAVING, _ALONE = 0.1, 0.1
#: Seconds that a text may stand still, or that its requests may fail, before it counts as lost.
_PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked for, and the bytes that the target alone writes."""

    prompt: Prompt
    options: TextOptions
    expected: bytes


def _with_drafts(options: TextOptions, drafts: bool) -> TextOptions:
    return TextOptions(**{**options, "draft": drafts})


@dataclass
class Tally:
    """What became of the texts. ``lost``: the errors of those that did not end, ``different``: what is known of those
    that are not the target's."""

    texts: int = 0
    left: int = 0
    tokens: int = 0
    resumes: int = 0
    accepted_tokens: int = 0
    lost: list[str] = field(default_factory=list)
    different: list[dict[str, Any]] = field(default_factory=list)


class Soak:
    """``clients``: at once. ``seed``: of what each client asks for, and of the faults in their order."""

    def __init__(
        self, fleet: SoakFleet, prompts: Sequence[Prompt], *, clients: int, max_tokens: int, seed: int
    ) -> None:
        self._fleet = fleet
        self._prompts = prompts
        self._clients = clients
        self._max_tokens = max_tokens
        self._seed = seed
        self._tasks: list[Task] = []
        self.tally = Tally()
        watched = {member.name: member.process for member in fleet.spared} | {CLIENTS: psutil.Process()}
        self.watch = Watch(watched, {fleet.verifiers[0].name: f"http://127.0.0.1:{fleet.metrics_port}/metrics"})

    async def prepare(self) -> None:
        """The texts of the target alone."""
        async with Client(self._fleet.verifiers[0].address) as client:
            for prompt in self._prompts:
                for sampling in _SAMPLINGS:
                    for rule in (Rule.RACE, Rule.EXACT):
                        options = TextOptions(sampling=sampling, rule=rule, max_tokens=self._max_tokens)
                        alone = await client.complete(prompt, **_with_drafts(options, False))
                        self._tasks.append(Task(prompt, options, alone.data))

    async def run(self, seconds: float, fault_every: float, sample_every: float) -> None:
        """Load and faults for so long; then the texts that run come to their ends.

        Raises DragomanError if a process ended by itself, or does not end or come back as it should.
        """
        fleet = self._fleet
        until = time.monotonic() + seconds
        try:
            async with (
                FleetClient(fleet.coordinator.address, patience=_PATIENCE) as client,
                asyncio.TaskGroup() as group,
            ):
                watching = group.create_task(self.watch.run(sample_every))
                faults = group.create_task(fleet.strike(random.Random(f"{self._seed} faults"), fault_every, until))
                chances = [random.Random(f"{self._seed} client {number}") for number in range(self._clients)]
                writing = [group.create_task(self._write(client, until, chance)) for chance in chances]
                await asyncio.wait([faults, *writing])
                watching.cancel()
        except* DragomanError as failed:
            raise failed.exceptions[0] from None

    async def _write(self, client: FleetClient, until: float, chance: random.Random) -> None:
        while time.monotonic() < until:
            number = chance.randrange(len(self._tasks))
            try:
                await self._text(client, number, chance)
            except DragomanError as error:
                self.tally.lost.append(f"text {number}: {error}")
            except TimeoutError:
                self.tally.lost.append(f"text {number} stood still for {_PATIENCE:g} s")

    async def _text(self, client: FleetClient, number: int, chance: random.Random) -> None:
        """Raises DragomanError, and TimeoutError if nothing comes for long."""
        task, tally = self._tasks[number], self.tally
        leaves_after = chance.randrange(1, 20) if chance.random() < _LEAVING else None
        drafted = chance.random() >= _ALONE
        async with client.stream(task.prompt, **_with_drafts(task.options, drafted)) as stream:
            chunks = 0
            while chunks != leaves_after and await asyncio.wait_for(anext(stream, None), _PATIENCE) is not None:
                chunks += 1
            found = stream.completion
        whole = chunks != leaves_after
        tally.left += not whole
        if not (found.data == task.expected if whole else task.expected.startswith(found.data)):
            told = {"text": number, "whole": whole, "drafted": drafted, "resumes": found.resumes}
            tally.different.append(told | {"found": repr(found.data), "expected": repr(task.expected)})
        tally.texts += whole
        tally.tokens += found.completion_tokens
        tally.resumes += found.resumes
        tally.accepted_tokens += found.stats.accepted_tokens


@dataclass(frozen=True)
class Setup:
    """What is measured, and on what."""

    target: str
    replicas: int
    drafters: list[str]
    side: Side
    clients: int
    max_tokens: int
    minutes: float
    fault_every: float
    sample_every: float
    seed: int


async def soak(setup: Setup, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """What came of it; ``good``: whether all of it is as it should be. Raises DragomanError if a process does not
    start."""
    died = ""
    async with soak_fleet((setup.target, setup.replicas), setup.drafters, setup.side) as fleet:
        running = Soak(fleet, prompts, clients=setup.clients, max_tokens=setup.max_tokens, seed=setup.seed)
        await running.prepare()
        try:
            await running.run(setup.minutes * 60, setup.fault_every, setup.sample_every)
        except DragomanError as error:
            died = str(error)
        left = await fleet.leftovers()
    rows, tally = growth(running.watch.samples), running.tally
    watched = {(row["process"], row["resource"]) for row in rows}
    unwatched = sorted(f"{process} {resource}" for process, resource in running.watch.to_tell - watched)
    good = not (died or left or unwatched or tally.lost or tally.different) and all(row["flat"] for row in rows)
    return {
        "setup": dataclasses.asdict(setup),
        "good": good,
        "died": died,
        "texts": dataclasses.asdict(tally),
        "faults": dict(fleet.faults),
        "left": left,
        "unwatched": unwatched,
        "growth": rows,
        "samples": [dataclasses.asdict(sample) for sample in running.watch.samples],
    }


def _show(found: dict[str, Any], console: Console) -> None:
    table = Table("process", "resource", "second quarter", "last quarter", "flat")
    for row in found["growth"]:
        scale, unit = (1 << 20, " MiB") if row["resource"] == "memory" else (1, "")
        early, late = (f"{row[part] / scale:.0f}{unit}" for part in ("early", "late"))
        table.add_row(row["process"], row["resource"], early, late, "yes" if row["flat"] else "no")
    console.print(table)
    texts = found["texts"]
    console.print(
        f"{texts['texts']} whole texts, {texts['left']} left, {texts['tokens']} tokens, {texts['resumes']} resumes, "
        f"{sum(found['faults'].values())} faults; {len(texts['different'])} differ, {len(texts['lost'])} lost; "
        f"left behind: {found['left'] or 'nothing'}"
    )
    for problem in (found["died"], *found["unwatched"]):
        if problem:
            console.print(problem, style="red", highlight=False)


def main(
    target: Annotated[str, typer.Option(help="Model of the verifiers")] = "smollm2-135m",
    replicas: Annotated[int, typer.Option(help="Verifiers; all but the first are killed and stopped", min=1)] = 2,
    drafter: Annotated[list[str] | None, typer.Option(help="Model of a drafter; all but the first are killed")] = None,
    clients: Annotated[int, typer.Option(help="Texts at once", min=1)] = 4,
    minutes: Annotated[float, typer.Option(help="How long", min=0.1)] = 60.0,
    fault_every: Annotated[float, typer.Option(help="Mean seconds between faults", min=0.1)] = 20.0,
    sample_every: Annotated[float, typer.Option(help="Seconds between samples", min=0.1)] = 5.0,
    prompts: Annotated[Path | None, typer.Option(help="JSONL with prompt or messages")] = None,
    limit: Annotated[int, typer.Option(help="So many prompts", min=1)] = 4,
    max_tokens: Annotated[int, typer.Option(help="Of each text", min=1)] = 48,
    dtype: Annotated[str, typer.Option(help="Of all models")] = "float32",
    threads: Annotated[int, typer.Option(help="Of each process; 0: all cores")] = 1,
    seed: Annotated[int, typer.Option(help="Of load and faults")] = 1,
    output: Annotated[Path | None, typer.Option(help="JSON")] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG or SVG of what processes hold over time")] = None,
) -> None:
    """Run it."""
    setup = Setup(
        target=target,
        replicas=replicas,
        drafters=drafter or ["smollm2-135m", "lookup"],
        side=Side(device="cpu", dtype=dtype, threads=threads),
        clients=clients,
        max_tokens=max_tokens,
        minutes=minutes,
        fault_every=fault_every,
        sample_every=sample_every,
        seed=seed,
    )
    found = run_with_children(soak(setup, load_prompts(prompts, limit=limit)))
    _show(found, Console(stderr=True))
    write_results(found, output)
    if plot is not None:
        from benchmarks.soak_figures import draw

        draw(found, plot)
    if not found["good"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(main)
