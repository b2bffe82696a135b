"""Is the text the target's own, byte for byte? The same prompts and seeds with every drafter and with none.

Real models, processes and sockets. In float32 on a CPU every text must be identical, greedy and sampled; in bfloat16
on an accelerator the share of texts that differ is the flip rate, which is then worth publishing.

    python -m benchmarks.identity --target gemma3-270m --drafter smollm2-135m --drafter lookup --dtype float32
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.command import run_command
from benchmarks.prompts import load_prompts
from dragoman.client import Client
from dragoman.processes import child
from dragoman.taking_turns import TAKING_TURNS_OPTIONS
from speculation.protocol.completion import Completion
from speculation.protocol.messages import Prompt
from speculation.sampling.params import Rule, SamplingParams

ALONE = "no drafter"


def samplings(temperature: float, count: int) -> dict[str, list[SamplingParams]]:
    """Greedy, and sampled: one fixed seed per prompt."""
    return {
        "greedy": [SamplingParams()] * count,
        f"temperature {temperature}": [SamplingParams(temperature=temperature, seed=seed) for seed in range(count)],
    }


async def answers(
    client: Client, prompts: list[Prompt], sampling: list[SamplingParams], rule: Rule, *, max_tokens: int, draft: bool
) -> list[Completion]:
    return [
        await client.complete(prompt, sampling=params, max_tokens=max_tokens, rule=rule, draft=draft)
        for prompt, params in zip(prompts, sampling, strict=True)
    ]


def compare(reference: list[Completion], drafted: list[Completion]) -> dict[str, Any]:
    """How many texts are the same in bytes and ids, and what the drafts brought."""
    same = [
        one.data == other.data and one.token_ids == other.token_ids
        for one, other in zip(reference, drafted, strict=True)
    ]
    return {
        "texts": len(same),
        "identical": sum(same),
        "different": [number for number, equal in enumerate(same) if not equal],
        "tokens": sum(len(completion.token_ids) for completion in drafted),
        "draft_tokens": sum(completion.stats.draft_tokens for completion in drafted),
        "accepted_tokens": sum(completion.stats.accepted_tokens for completion in drafted),
    }


async def run(
    target: str,
    drafters: list[str],
    prompts: list[Prompt],
    *,
    dtype: str,
    max_tokens: int,
    temperature: float,
    rule: Rule,
    console: Console,
) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    options = [f"--model={target}", f"--dtype={dtype}", "--listen=127.0.0.1:0", *TAKING_TURNS_OPTIONS]
    async with contextlib.AsyncExitStack() as stack:
        verifier = await stack.enter_async_context(child("verifier", ["verifier", *options]))
        address = (await verifier.ready())["address"]
        client = await stack.enter_async_context(Client(address))
        reference: dict[str, list[Completion]] = {}
        for name, sampling in samplings(temperature, len(prompts)).items():
            reference[name] = await answers(client, prompts, sampling, rule, max_tokens=max_tokens, draft=False)
        for model in drafters:
            arguments = ["drafter", f"--model={model}", f"--verifier={address}", "--threads=1"]
            async with child("drafter", arguments) as drafter:
                await drafter.ready()
                for name, sampling in samplings(temperature, len(prompts)).items():
                    drafted = await answers(client, prompts, sampling, rule, max_tokens=max_tokens, draft=True)
                    found[f"{model}, {name}"] = compare(reference[name], drafted)
                    console.print(f"{model}, {name}: {found[f'{model}, {name}']}", highlight=False)
    return found


def show(found: dict[str, dict[str, Any]], console: Console, target: str) -> None:
    table = Table("drafter, sampling", "texts", "identical", "draft tokens", "accepted", title=f"target {target}")
    for name, row in found.items():
        table.add_row(name, *(str(row[key]) for key in ("texts", "identical", "draft_tokens", "accepted_tokens")))
    console.print(table)


def main(
    target: str = "gemma3-270m",
    drafter: Annotated[list[str] | None, typer.Option(help="May be repeated  [default: smollm2-135m, lookup]")] = None,
    prompts: Annotated[Path, typer.Option(help="JSONL with prompt or messages in each line")] = (
        Path(__file__).parent / "prompts.jsonl"
    ),
    limit: int = 20,
    max_tokens: int = 32,
    temperature: float = 0.8,
    dtype: str = "float32",
    rule: Annotated[str, typer.Option(help="race or exact")] = "race",
) -> None:
    """Compare; exit code 1 if a text differs."""
    console = Console(stderr=True)
    found = asyncio.run(
        run(
            target,
            drafter or ["smollm2-135m", "lookup"],
            load_prompts(prompts, limit=limit),
            dtype=dtype,
            max_tokens=max_tokens,
            temperature=temperature,
            rule=Rule(rule),
            console=console,
        )
    )
    show(found, console, target)
    print(json.dumps({"target": target, "dtype": dtype, "rule": rule, "arms": found}))
    if any(row["different"] for row in found.values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(main)
