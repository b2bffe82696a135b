"""Does a text change with what runs beside it? The same prompts and seeds, served in every way that there is.

The reference is the target alone, one text at a time, without lookup and without prefix caching. Against it, greedy and
sampled: with lookup; with a drafter; many at once; the same prompts again, which then share what was computed for them;
wide trees of several drafters; these many at once; and resumed in the middle, from the bytes received. A text that
differs is a flip. Where a target promises exact texts there is none: exit code 1 if there is one.

    python -m benchmarks.flips --target qwen2.5-coder-1.5b --prompts prompts.jsonl --limit 40 --device cuda
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.clients import Asking, Load
from benchmarks.command import run_command
from benchmarks.figures import Served
from benchmarks.pair_processes import Serving, Side, drafting, serving
from benchmarks.prompts import load_prompts
from benchmarks.results import write_results
from dragoman.processes import run_with_children
from speculation.errors import DivergedError, InputError
from speculation.plural import count_of
from speculation.protocol.completion import Completion
from speculation.protocol.messages import Prompt
from speculation.source import SourceKind

REFERENCE = "alone"
LOOKUP, DRAFTER, TOGETHER = "lookup", "drafter", "together"
PREFIXES, WIDE, WIDE_TOGETHER, RESUMED = "prefixes", "wide", "wide_together", "resumed"
#: By the two verifiers that serve them: the first computes every prompt anew and plans by itself, the second shares
#: prefixes and verifies whatever it is sent.
FIRST, SECOND = (LOOKUP, DRAFTER, TOGETHER), (PREFIXES, WIDE, WIDE_TOGETHER, RESUMED)
ARMS = FIRST + SECOND
WIDE_PLAN = (
    "--no-adaptive",
    "--lookahead=16",
    "--span-tokens=1",
    "--stop-threshold=0",
    "--alternatives=8",
    "--alternative-threshold=1",
    "--verify-threshold=0",
)
_Ask = Callable[[Asking, int], Awaitable[Served]]


@dataclass(frozen=True)
class Setup:
    """What is measured, and on what. ``drafters``: the first drafts alone, all of them and a lookup draft wide."""

    target: str
    drafters: list[str]
    verifier: Side
    drafting: Side
    arms: list[str]
    temperatures: list[float]
    concurrency: int
    max_tokens: int
    ignore_end: bool
    width: int


def compare(reference: Sequence[Completion], found: Sequence[Completion]) -> dict[str, Any]:
    """``flips``: prompt and token of each text that differs in bytes or ids, where it first does. ``tokens``: compared,
    up to there. ``drafters_tokens``: draft tokens that drafters guessed; where there are none, the arm shows nothing of
    drafters, who were too slow for the target, say."""
    flips, tokens = [], 0
    for number, (one, other) in enumerate(zip(reference, found, strict=True)):
        same = 0
        while same < min(len(one.token_ids), len(other.token_ids)) and one.token_ids[same] == other.token_ids[same]:
            same += 1
        differs = one.data != other.data or one.token_ids != other.token_ids
        tokens += same + (differs and same < len(one.token_ids))
        if differs:
            flips.append({"prompt": number, "token": same})
    return {
        "texts": len(found),
        "tokens": tokens,
        "flips": flips,
        "draft_tokens": sum(completion.stats.draft_tokens for completion in found),
        "accepted_tokens": sum(completion.stats.accepted_tokens for completion in found),
        "drafters_tokens": sum(
            share.draft_tokens for completion in found for share in completion.shares_of(SourceKind.DRAFTER)
        ),
        "replayed_tokens": sum(completion.replayed_tokens for completion in found),
    }


class Bench:
    """All arms, each with every temperature."""

    def __init__(self, setup: Setup, prompts: list[Prompt], console: Console) -> None:
        self._setup = setup
        self._prompts = prompts
        self._console = console
        self._reference: dict[float, list[Completion]] = {}
        self.rows: list[dict[str, Any]] = []

    async def run(self) -> None:
        """Raises DragomanError if a process dies."""
        setup = self._setup
        async with serving(setup.target, setup.verifier, "--no-prefix-caching") as running:
            await running.verifier.during(self._first(running))
        if set(SECOND) & set(setup.arms):
            async with serving(setup.target, setup.verifier, *WIDE_PLAN, f"--width={setup.width}") as running:
                await running.verifier.during(self._second(running))

    async def _first(self, running: Serving) -> None:
        await self._measure(running, REFERENCE, _alone)
        await self._measure(running, LOOKUP, _drafted)
        if {DRAFTER, TOGETHER} & set(self._setup.arms):
            async with drafting(self._setup.drafters[:1], running.address, self._setup.drafting):
                await self._measure(running, DRAFTER, _drafted)
                await self._measure(running, TOGETHER, _drafted)

    async def _second(self, running: Serving) -> None:
        if PREFIXES in self._setup.arms:
            for _ in range(2):  # what the first round computes, the second finds
                await self._measure(running, PREFIXES, _alone)
        if {WIDE, WIDE_TOGETHER, RESUMED} & set(self._setup.arms):
            models = [*self._setup.drafters, "lookup"]
            async with drafting(models, running.address, self._setup.drafting):
                await self._measure(running, WIDE, _drafted)
                await self._measure(running, WIDE_TOGETHER, _drafted)
                await self._measure(running, RESUMED, None)

    async def _measure(self, running: Serving, arm: str, ask: _Ask | None) -> None:
        """``ask`` None: resumed from half of the reference's bytes."""
        if arm not in (REFERENCE, *self._setup.arms):
            return
        load = Load(self._setup.concurrency if arm in (TOGETHER, WIDE_TOGETHER) else 1)
        for temperature in self._setup.temperatures:
            asking = Asking(
                running.client,
                self._prompts,
                temperature=temperature,
                max_tokens=self._setup.max_tokens,
                ignore_end=self._setup.ignore_end,
            )
            reference = self._reference.get(temperature, [])

            async def one(number: int, asking: Asking = asking, known: list[Completion] = reference) -> Served:
                if ask is not None:
                    return await ask(asking, number)
                half = known[number].data
                try:
                    return await asking.resume(number, half[: len(half) // 2], draft=True)
                except DivergedError:  # it flipped before: all that is left of it is none of the reference's
                    return Served(replace(known[number], runs=[], token_ids=[]))

            served, seconds = await load.run(one, len(self._prompts))
            found = [each.completion for each in served]
            if arm == REFERENCE:
                reference = self._reference[temperature] = found
            self._add({"arm": arm, "temperature": temperature, **compare(reference, found), "seconds": seconds})

    def _add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self._console.print(
            f"{row['arm']}, temperature {row['temperature']:g}: "
            f"{count_of(len(row['flips']), 'flip')} in {row['tokens']} tokens, {row['seconds']:.0f} s",
            highlight=False,
        )


async def _alone(asking: Asking, number: int) -> Served:
    return await asking.ask(number, draft=False)


async def _drafted(asking: Asking, number: int) -> Served:
    return await asking.ask(number, draft=True)


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """A line an arm and a temperature."""
    heads = ("arm", "tempe-\nrature", "texts", "tokens", "flips", "draft\ntokens", "of\ndrafters", "accepted")
    table = Table(*heads, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))  # all of it in 80 columns
    for row in rows:
        drafts = (row["draft_tokens"], row["drafters_tokens"], row["accepted_tokens"])
        counts = (row["texts"], row["tokens"], len(row["flips"]), *drafts)
        table.add_row(row["arm"].replace("_", " "), f"{row['temperature']:g}", *map(str, counts))
    console.print(table)


def check(arms: list[str]) -> None:
    """Raises InputError."""
    for arm in arms:
        if arm not in ARMS:
            raise InputError("arm", arm, "is no arm", remedy=f"one of: {', '.join(ARMS)}")


def main(
    target: str = "qwen2.5-coder-1.5b",
    drafter: Annotated[list[str] | None, typer.Option(help="May be repeated  [default: smollm2-135m]")] = None,
    prompts: Annotated[Path, typer.Option(help="JSONL with prompt or messages in each line")] = (
        Path(__file__).parent / "prompts.jsonl"
    ),
    task: str = "",
    limit: int = 40,
    max_tokens: int = 256,
    ignore_end: Annotated[bool, typer.Option(help="All of --max-tokens, also where a text has ended")] = False,
    temperature: Annotated[list[float] | None, typer.Option(help="May be repeated  [default: 0, 0.8]")] = None,
    concurrency: Annotated[int, typer.Option(help="Of the arms with many at once")] = 32,
    arm: Annotated[
        list[str] | None, typer.Option(help=f"May be repeated; of {', '.join(ARMS)}  [default: all]")
    ] = None,
    width: Annotated[int, typer.Option(help="Draft tokens of a wide tree; a CPU takes 31 at most in bfloat16")] = 31,
    device: str = "auto",
    dtype: str = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads of the target; 0: all cores")] = 0,
    drafter_device: str = "cpu",
    drafter_threads: int = 1,
    verifier_option: Annotated[list[str] | None, typer.Option(help="Another option of it; may be repeated")] = None,
    output: Annotated[Path | None, typer.Option(help="Where the JSON goes  [default: standard output]")] = None,
) -> None:
    """Compare; exit code 1 if a text differs."""
    console = Console(stderr=True)
    check(arms := list(arm or ARMS))
    setup = Setup(
        target=target,
        drafters=drafter or ["smollm2-135m"],
        verifier=Side(device, dtype, threads=threads, sessions=concurrency, options=tuple(verifier_option or ())),
        drafting=Side(drafter_device, threads=drafter_threads, sessions=concurrency),
        arms=arms,
        temperatures=[0.0, 0.8] if temperature is None else temperature,
        concurrency=concurrency,
        max_tokens=max_tokens,
        ignore_end=ignore_end,
        width=width,
    )
    bench = Bench(setup, load_prompts(prompts, limit=limit, task=task), console)
    run_with_children(bench.run())
    show(bench.rows, console)
    write_results({"setup": asdict(setup), "arms": bench.rows}, output)
    for row in bench.rows:
        if row["arm"] in (DRAFTER, TOGETHER, WIDE, WIDE_TOGETHER) and not row["draft_tokens"]:
            raise InputError("drafter", row["arm"], "brought no draft token, so this arm shows nothing")
    if any(row["flips"] for row in bench.rows):
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(main)
