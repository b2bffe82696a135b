"""A real target and a real drafter as they are served: the target alone, with lookup, with the drafter, on one device.

The real commands run as processes. Each arm answers the same prompts, so many clients at once (``--concurrency``) or
arriving at random (``--rate``), and every text must be the same bytes in all of them: exit code 1 if one is not.
Prompts begin cold in every arm, and are not drafted from what another arm has written. ``--transformers``: Hugging
Face's plain and assisted generation with the same two models on the same device, after the verifier has left it.
``benchmarks/deepened.py`` makes a target of any size.

    python -m benchmarks.served_pair --target deep --drafter smollm2-135m --prompts prompts.jsonl --limit 32 \\
        --concurrency 1 --concurrency 16 --device cuda --drafter-device cpu --transformers --output served_pair.json
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.clients import Asking, Load
from benchmarks.command import run_command
from benchmarks.figures import Served, of_answer, of_arm, of_completion, of_rows
from benchmarks.pair_processes import Serving, Side, drafting, serving
from benchmarks.prompts import load_prompts
from benchmarks.results import write_results
from benchmarks.served_pair_tables import show
from dragoman.bench.comparison import over
from dragoman.bench.goal import Goal
from dragoman.demo import title
from dragoman.processes import run_with_children
from speculation.errors import InputError
from speculation.protocol.messages import ChatMessage, Prompt

ALONE, LOOKUP, DRAFTED = "target_alone", "lookup", "dragoman"
PLAIN, ASSISTED = "transformers", "transformers_assisted"
WARM_UP = Prompt(messages=(ChatMessage("user", "Count to ten."),))
WARM_UP_TOKENS = 32


@dataclass(frozen=True)
class Setup:
    """What is measured, and on what."""

    target: str
    drafters: list[str]
    verifier: Side
    drafting: Side
    loads: list[Load]
    max_tokens: int
    temperature: float
    goal: Goal
    transformers: bool


class Bench:
    """Cells: an arm under a load. The first of all, the target alone, says what each text has to be."""

    def __init__(self, setup: Setup, prompts: list[Prompt], console: Console) -> None:
        self._setup = setup
        self._prompts = prompts
        self._console = console
        self._texts: list[bytes] = []
        self._base: dict[Load, list[dict[str, Any]]] = {}
        self.cells: list[dict[str, Any]] = []

    async def served(self) -> None:
        """All arms of Dragoman. Raises DragomanError if a process dies."""
        setup = self._setup
        async with serving(setup.target, setup.verifier, "--no-prefix-caching") as running:
            work = self._arms(running)
            await running.verifier.during(work)

    async def _arms(self, running: Serving) -> None:
        for load in self._setup.loads:
            await self._measure(running, ALONE, load)
            await self._measure(running, LOOKUP, load)
        async with drafting(self._setup.drafters, running.address, self._setup.drafting):
            for load in self._setup.loads:
                await self._measure(running, DRAFTED, load)

    async def _measure(self, running: Serving, arm: str, load: Load) -> None:
        heat, most = self._setup.temperature, self._setup.max_tokens

        async def run(salt: str) -> tuple[list[Served], float]:
            salt = f"{arm} {load.name} {salt}"
            asking = Asking(running.client, self._prompts, temperature=heat, max_tokens=most, salt=salt)
            return await load.run(lambda number: asking.ask(number, draft=arm != ALONE), len(self._prompts))

        await run("warm-up")  # a GPU captures a graph for each size of step when it first has one
        served, seconds = await run("measured")
        self._add(arm, load, served, seconds)

    def _add(self, arm: str, load: Load, served: list[Served], seconds: float) -> None:
        rows = [of_completion(one.completion) for one in served]
        texts = [one.completion.data for one in served]
        self._texts = self._texts or texts
        if arm == ALONE:
            self._base[load] = rows
        different = [number for number, text in enumerate(texts) if text != self._texts[number]]
        cell = {**self._head(arm, load, rows), **of_arm(served, seconds, self._setup.goal), "different": different}
        if arm != ALONE:
            cell |= over("speed_up", rows, self._base[load])
        self._keep(cell)

    def generated(self) -> None:
        """Both arms of transformers, one request at a time."""
        import torch

        from benchmarks.transformers_arm import TransformersPair

        setup, device = self._setup, self._setup.verifier.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        pair = TransformersPair(setup.target, setup.drafters[0], threads=setup.verifier.threads, device=device)
        load = Load(1)
        served = next((cell["requests"] for cell in self.cells if _is(cell, DRAFTED, load)), None)
        for arm in (PLAIN, ASSISTED):
            pair.generate(WARM_UP, max_tokens=WARM_UP_TOKENS, assisted=arm == ASSISTED)
            began, texts, rows = time.perf_counter(), [], []
            for prompt in self._prompts:
                answer = pair.generate(prompt, max_tokens=setup.max_tokens, assisted=arm == ASSISTED)
                texts.append(answer.data)
                rows.append(of_answer(answer))
            cell = self._head(arm, load, rows) | of_rows(rows, time.perf_counter() - began)
            # Of another engine with other kernels: told, and no fault.
            cell["unlike_target_alone"] = sum(one != other for one, other in zip(texts, self._texts, strict=True))
            if load in self._base:
                cell |= over("speed_up", rows, self._base[load])
            if served is not None:
                cell |= over(f"dragoman_over_{'assisted' if arm == ASSISTED else arm}", served, rows)
            self._keep(cell)

    def _head(self, arm: str, load: Load, rows: list[dict[str, Any]]) -> dict[str, Any]:
        requests = [{"prompt": title(prompt), **row} for prompt, row in zip(self._prompts, rows, strict=True)]
        return {"arm": arm, "load": load.name, **asdict(load), "requests": requests}

    def _keep(self, cell: dict[str, Any]) -> None:
        self.cells.append(cell)
        gain = f", {cell['median_speed_up']:.2f}x" if "median_speed_up" in cell else ""
        speed = f"{cell.get('median_tpot_ms', 0.0):.1f} ms a token, {cell['output_throughput']:.1f} tokens/s"
        self._console.print(f"{cell['arm']}, {cell['load']}: {speed}{gain}", highlight=False)


def _is(cell: dict[str, Any], arm: str, load: Load) -> bool:
    return bool(cell["arm"] == arm and cell["load"] == load.name)


def summary(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Whether every text of Dragoman was the target's own."""
    judged = [cell for cell in cells if "different" in cell]
    different = sum(len(cell["different"]) for cell in judged)
    return {"identical": not different, "texts": sum(cell["completed"] for cell in judged), "different": different}


def measure(setup: Setup, prompts: list[Prompt], console: Console) -> list[dict[str, Any]]:
    """All cells. Raises DragomanError if a process dies."""
    bench = Bench(setup, prompts, console)
    run_with_children(bench.served())
    if setup.transformers:
        bench.generated()
    return bench.cells


def check(setup: Setup) -> None:
    """Raises InputError for arms that cannot be compared."""
    if setup.transformers and setup.temperature:
        problem = "has other draws in transformers, so that the texts are others"
        raise InputError("temperature", setup.temperature, problem, remedy="leave out --transformers, or give 0")
    if setup.transformers and setup.verifier.dtype not in ("auto", "bfloat16"):
        problem = "is not what transformers runs in here"
        raise InputError("dtype", setup.verifier.dtype, problem, remedy="leave out --transformers, or give bfloat16")
    if setup.transformers and setup.drafters[0] == "lookup":
        raise InputError("drafter", "lookup", "is no model that could assist transformers", remedy="name a model first")


def main(
    target: str = "qwen2.5-coder-1.5b",
    drafter: Annotated[list[str] | None, typer.Option(help="May be repeated  [default: smollm2-135m]")] = None,
    prompts: Annotated[Path | None, typer.Option(help="JSONL with prompt or messages in each line")] = None,
    task: str = "",
    limit: int = 32,
    max_tokens: int = 128,
    temperature: Annotated[float, typer.Option(help="0 is greedy; else each prompt has a seed of its own")] = 0.0,
    concurrency: Annotated[
        list[int] | None, typer.Option(help="Clients at once; may be repeated  [default: 1]")
    ] = None,
    rate: Annotated[list[float] | None, typer.Option(help="Requests a second, at random; may be repeated")] = None,
    ttft_goal: Annotated[float, typer.Option(help="Milliseconds that count as good; 0: any number")] = 0.0,
    tpot_goal: Annotated[float, typer.Option(help="The same for each further token")] = 0.0,
    device: str = "auto",
    dtype: str = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads of the target; 0: all cores")] = 0,
    drafter_device: str = "cpu",
    drafter_dtype: str = "auto",
    drafter_threads: int = 1,
    transformers: Annotated[bool, typer.Option(help="Hugging Face transformers as well")] = False,
    verifier_option: Annotated[list[str] | None, typer.Option(help="Another option of it; may be repeated")] = None,
    drafter_option: Annotated[list[str] | None, typer.Option(help="Another option of it; may be repeated")] = None,
    output: Annotated[Path | None, typer.Option(help="Where the JSON goes  [default: standard output]")] = None,
) -> None:
    """Compare; exit code 1 if a text differs."""
    console = Console(stderr=True)
    asked = load_prompts(prompts, limit=limit, task=task)
    loads = [Load(number) for number in concurrency or ([] if rate else [1])] + [Load(rate=each) for each in rate or []]
    sessions = max(len(asked) if load.rate else load.concurrency for load in loads)
    setup = Setup(
        target=target,
        drafters=drafter or ["smollm2-135m"],
        verifier=Side(device, dtype, threads=threads, sessions=sessions, options=tuple(verifier_option or ())),
        drafting=Side(
            drafter_device,
            drafter_dtype,
            threads=drafter_threads,
            sessions=sessions,
            options=tuple(drafter_option or ()),
        ),
        loads=loads,
        max_tokens=max_tokens,
        temperature=temperature,
        goal=Goal(ttft_ms=ttft_goal or None, tpot_ms=tpot_goal or None),
        transformers=transformers,
    )
    check(setup)
    cells = measure(setup, asked, console)
    show(cells, console)
    found = summary(cells)
    console.print(f"{found['texts']} texts, of which differ: {found['different']}", highlight=False)
    write_results({"setup": asdict(setup), "summary": found, "cells": cells}, output)
    if not found["identical"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(main)
