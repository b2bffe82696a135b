"""Speed beside acceptance for every verification rule, end to end: which rule to take is a question of speed.

Verifier and drafter run as processes of their own on this machine, with the settings that users get (or, with
``--take-turns``, those of ``dragoman demo``). Prompt by prompt the target alone and every rule answer in turn, so that
a machine that gets slower or faster is fair to all; what counts are the ratios. Speeds are those of decoding, from the
first chunk on. Sampled texts differ from rule to rule, so the figures of a rule are sums over all prompts.

    python -m benchmarks.rules_speed --target qwen2.5-coder-1.5b --drafter smollm2-135m --temperature 0.7

Where a step's time goes, in milliseconds: ``forward`` in the target's forward pass, ``held`` before it for a draft, and
``other`` in sampling, session and wire. ``drafter`` is the drafter's processor time for each committed token.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.command import run_command
from benchmarks.prompts import load_prompts
from benchmarks.results import write_results
from dragoman.client import Client
from dragoman.processes import ChildProcess, child
from dragoman.taking_turns import TAKING_TURNS_OPTIONS
from speculation.protocol.completion import Completion
from speculation.protocol.messages import Prompt
from speculation.sampling.params import Rule, SamplingParams

ALONE = "target alone"
#: Tokens of each arm before anything is counted: the drafter gets the target's vocabulary, and the figures that plans
#: rest on become those of this machine.
SETTLING_TOKENS = 48


def processor_seconds(pid: int) -> float:
    """Processor time that a process has taken so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Arms:
    """The target alone and every rule, on one verifier and one drafter."""

    def __init__(self, client: Client, drafter: ChildProcess, rules: list[Rule], temperature: float) -> None:
        self._client = client
        self._drafter = drafter
        self._temperature = temperature
        self.names = [ALONE, *(rule.value for rule in rules)]
        self.sums: dict[str, dict[str, float]] = {name: defaultdict(float) for name in self.names}
        #: Seconds per token of each arm, answer by answer.
        self.paces: dict[str, list[float]] = {name: [] for name in self.names}

    async def settle(self, prompt: Prompt) -> None:
        for name in self.names:
            await self._answer(name, prompt, seed=0, max_tokens=SETTLING_TOKENS)

    async def measure(self, prompt: Prompt, *, number: int, max_tokens: int) -> dict[str, float]:
        """One prompt through every arm, the order turning from prompt to prompt. Returns speed-ups."""
        turned = number % len(self.names)
        for name in self.names[turned:] + self.names[:turned]:
            before = processor_seconds(self._drafter.pid)
            done = await self._answer(name, prompt, seed=number, max_tokens=max_tokens)
            self._count(name, done, processor_seconds(self._drafter.pid) - before)
        alone = self.paces[ALONE][-1]
        return {name: alone / self.paces[name][-1] for name in self.names[1:]}

    async def _answer(self, name: str, prompt: Prompt, *, seed: int, max_tokens: int) -> Completion:
        sampling = SamplingParams(temperature=self._temperature, seed=seed)
        rule = Rule.RACE if name == ALONE else Rule(name)
        return await self._client.complete(
            prompt, sampling=sampling, max_tokens=max_tokens, rule=rule, draft=name != ALONE, ignore_end=True
        )

    def _count(self, name: str, done: Completion, drafter_seconds: float) -> None:
        stats, sums = done.stats, self.sums[name]
        assert done.tpot is not None
        self.paces[name].append(done.tpot)
        other = stats.overhead_p50_seconds * stats.steps
        # The first step's forward pass and the prefill before it lie before the first chunk.
        forward = stats.verify_seconds * (stats.steps - 1) / stats.steps
        counted = {
            "tokens": done.completion_tokens,
            "decode_tokens": done.decode_tokens,
            "decode_seconds": done.decode_seconds,
            "steps": stats.steps,
            "draft_tokens": stats.draft_tokens,
            "accepted_tokens": stats.accepted_tokens,
            "bytes": stats.bytes_up + stats.bytes_down,
            "forward_seconds": forward,
            "other_seconds": other,
            "held_seconds": max(0.0, done.decode_seconds - forward - other),
            "drafter_seconds": drafter_seconds,
        }
        for key, value in counted.items():
            sums[key] += value

    def figures(self, name: str) -> dict[str, float]:
        """Of one arm, over all that was measured."""
        sums, speed_ups = self.sums[name], [a / b for a, b in zip(self.paces[ALONE], self.paces[name], strict=True)]
        alone = self.sums[ALONE]
        steps = sums["steps"]
        speed = sums["decode_tokens"] / sums["decode_seconds"]
        return {
            "tokens_per_second": speed,
            "speed_up": speed / (alone["decode_tokens"] / alone["decode_seconds"]),
            "median_speed_up": statistics.median(speed_ups),
            "worst_speed_up": min(speed_ups),
            "acceptance_rate": sums["accepted_tokens"] / max(sums["draft_tokens"], 1.0),
            "mean_acceptance_length": sums["tokens"] / steps,
            "draft_tokens_per_step": sums["draft_tokens"] / steps,
            "forward_ms": 1000 * sums["forward_seconds"] / steps,
            "held_ms": 1000 * sums["held_seconds"] / steps,
            "other_ms": 1000 * sums["other_seconds"] / steps,
            "drafter_ms": 1000 * sums["drafter_seconds"] / sums["tokens"],
            "bytes_per_token": sums["bytes"] / sums["tokens"],
        }


def show(figures: dict[str, dict[str, float]], console: Console, title: str) -> None:
    table = Table("rule", title=title)
    headings = ("tokens/s", "speed-up\n(median, worst)", "accepted", "tokens\nper step")
    for heading in (*headings, "drafted\nper step", "forward\nms", "held\nms", "other\nms", "drafter\nms", "bytes"):
        table.add_column(heading, justify="right")
    for name, row in figures.items():
        table.add_row(
            name,
            f"{row['tokens_per_second']:.2f}",
            f"{row['speed_up']:.2f} ({row['median_speed_up']:.2f}, {row['worst_speed_up']:.2f})",
            f"{row['acceptance_rate']:.0%}",
            f"{row['mean_acceptance_length']:.2f}",
            f"{row['draft_tokens_per_step']:.1f}",
            *(f"{row[part]:.0f}" for part in ("forward_ms", "held_ms", "other_ms", "drafter_ms", "bytes_per_token")),
        )
    console.print(table)


async def run(
    models: tuple[str, str],
    prompts: list[Prompt],
    rules: list[Rule],
    *,
    temperature: float,
    max_tokens: int,
    repeats: int,
    threads: tuple[int, int],
    options: list[str],
    console: Console,
) -> dict[str, Any]:
    async with contextlib.AsyncExitStack() as stack:
        arguments = [f"--model={models[0]}", "--listen=127.0.0.1:0", f"--threads={threads[0]}", *options]
        verifier = await stack.enter_async_context(child("verifier", ["verifier", *arguments]))
        address = (await verifier.ready())["address"]
        arguments = [f"--model={models[1]}", f"--verifier={address}", f"--threads={threads[1]}"]
        drafter = await stack.enter_async_context(child("drafter", ["drafter", *arguments]))
        await drafter.ready()
        client = await stack.enter_async_context(Client(address))
        arms = Arms(client=client, drafter=drafter, rules=rules, temperature=temperature)
        await arms.settle(prompts[0])
        for number in range(repeats * len(prompts)):
            ratios = await arms.measure(prompts[number % len(prompts)], number=number, max_tokens=max_tokens)
            console.print(
                f"{number + 1}: { ({name: round(ratio, 2) for name, ratio in ratios.items()}) }", highlight=False
            )
        return {name: arms.figures(name) for name in arms.names}


def main(
    target: str = "qwen2.5-coder-1.5b",
    drafter: str = "smollm2-135m",
    rule: Annotated[list[str] | None, typer.Option(help="May be repeated  [default: all]")] = None,
    temperature: float = 0.7,
    prompts: Annotated[Path | None, typer.Option(help="JSONL with prompt or messages in each line")] = None,
    task: str = "",
    limit: int = 4,
    max_tokens: int = 64,
    repeats: Annotated[int, typer.Option(help="Times that each prompt is asked, with other seeds")] = 1,
    target_threads: Annotated[int, typer.Option(help="CPU threads of the target; 0: all cores")] = 0,
    drafter_threads: int = 1,
    take_turns: Annotated[bool, typer.Option(help="The plan of `dragoman demo` in place of the adaptive one")] = False,
    output: Annotated[Path | None, typer.Option(help="Where the JSON goes  [default: standard output]")] = None,
) -> None:
    """Compare the rules, speed beside acceptance."""
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 140)
    threads = target_threads or len(os.sched_getaffinity(0)), drafter_threads
    asked = load_prompts(prompts, limit=limit, task=task)
    rules = [Rule(name) for name in rule] if rule else list(Rule.concrete())
    work = run(
        (target, drafter),
        asked,
        rules,
        temperature=temperature,
        max_tokens=max_tokens,
        repeats=repeats,
        threads=threads,
        options=list(TAKING_TURNS_OPTIONS) if take_turns else [],
        console=console,
    )
    figures = asyncio.run(work)
    kind = "taking turns" if take_turns else "adaptive"
    show(figures, console, f"{drafter} -> {target}, temperature {temperature:g}, {kind}")
    setup = {"target": target, "drafter": drafter, "temperature": temperature, "plan": kind, "max_tokens": max_tokens}
    write_results(
        {"setup": {**setup, "threads": threads, "prompts": len(asked), "repeats": repeats}, **figures}, output
    )


if __name__ == "__main__":
    run_command(main)
