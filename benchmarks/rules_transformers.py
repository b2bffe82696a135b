"""Is sampled text across vocabularies the target's? Hugging Face's assisted generation, the same ``generate`` with
Dragoman's remote drafters (``RemoteDrafting``), and Dragoman's rejection rule.

All draw the first tokens of the same prompt with the same pair and settings, once for each seed. A G-test compares
each with the target's own distribution, enumerated by plain forward passes. A right sampler has a small p-value by
chance only: below 0.0001 once in 10,000 runs. The total variation is that of the draws themselves, so a right sampler
has one as well, which falls with the square root of their number. Everything is in float32: in bfloat16 two right
programs differ by their rounding, which many draws would show.

    python -m benchmarks.rules_transformers --target gemma3-270m --drafter smollm2-135m --draws 400
    python -m benchmarks.rules_transformers --no-transformers --draws 4000 --first-seed 1000
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from rich.console import Console
from scipy.stats import power_divergence

from benchmarks.command import run_command
from benchmarks.fault_proxy import LinkConditions
from benchmarks.huggingface import drafter_behind
from benchmarks.transformers_arm import TransformersPair
from dragoman.client import Client
from dragoman.processes import child
from dragoman.taking_turns import TAKING_TURNS, TAKING_TURNS_OPTIONS
from speculation.protocol.messages import Prompt
from speculation.sampling.params import Rule, SamplingParams

Sequences = Counter[tuple[int, ...]]


def verdict(counts: Sequences, truth: dict[tuple[int, ...], float]) -> dict[str, float]:
    """p-value of the G-test over the sequences that are expected 5 times or more, total variation, and strays.

    ``impossible``: draws that the target never makes. They make the p-value 0.
    """
    draws = sum(counts.values())
    frequent = [ids for ids, share in truth.items() if share * draws >= 5]
    cells, shares = [counts[ids] for ids in frequent], [truth[ids] for ids in frequent]
    impossible = sum(count for ids, count in counts.items() if ids not in truth)
    rest = 1 - sum(shares)
    if rest * draws >= 5:
        cells.append(draws - impossible - sum(cells))
        shares.append(rest)
    expected = [share / sum(shares) * sum(cells) for share in shares]
    p_value = 0.0 if impossible else float(power_divergence(cells, expected, lambda_="log-likelihood").pvalue)
    distance = sum(abs(counts[ids] / draws - truth.get(ids, 0.0)) for ids in {*counts, *truth}) / 2
    return {"p_value": p_value, "total_variation": distance, "impossible": impossible}


async def drawn_by_dragoman(
    target: str, drafter: str, prompt: Prompt, *, seeds: Iterable[int], tokens: int, temperature: float, top_k: int
) -> tuple[Sequences, dict[str, int]]:
    """Through two processes; with the draft tokens that were verified and accepted."""
    counts: Sequences = Counter()
    drafted = accepted = 0
    async with contextlib.AsyncExitStack() as stack:
        options = [f"--model={target}", "--listen=127.0.0.1:0", "--dtype=float32", *TAKING_TURNS_OPTIONS]
        verifier = await stack.enter_async_context(child("verifier", ["verifier", *options]))
        address = (await verifier.ready())["address"]
        arguments = ["drafter", f"--model={drafter}", f"--verifier={address}", "--threads=1"]
        process = await stack.enter_async_context(child("drafter", arguments))
        await process.ready()
        client = await stack.enter_async_context(Client(address))
        for seed in seeds:
            sampling = SamplingParams(temperature=temperature, top_k=top_k, seed=seed)
            done = await client.complete(
                prompt, sampling=sampling, max_tokens=tokens + 1, rule=Rule.REJECTION, ignore_end=True
            )
            counts[tuple(done.token_ids[:tokens])] += 1
            drafted += done.stats.draft_tokens
            accepted += done.stats.accepted_tokens
    return counts, {"draft_tokens": drafted, "accepted_tokens": accepted}


def drawn_by_bridge(
    pair: TransformersPair, drafter: str, prompt: Prompt, *, seeds: Iterable[int], **settings: Any
) -> tuple[Sequences, dict[str, int]]:
    """By ``generate``, with a drafter in a process of its own; ``settings``: of ``TransformersPair.sample``."""
    counts: Sequences = Counter()
    drafted = accepted = 0
    with (
        pair.remote_drafting(listen="127.0.0.1:0", plan=TAKING_TURNS) as drafting,
        drafter_behind(LinkConditions(0), drafting, drafter),
    ):
        for seed in seeds:
            counts[pair.sample(prompt, seed=seed, drafting=drafting, **settings)] += 1
            drafted += drafting.last.draft_tokens
            accepted += drafting.last.accepted_tokens
    return counts, {"draft_tokens": drafted, "accepted_tokens": accepted}


def main(
    target: str = "gemma3-270m",
    drafter: str = "smollm2-135m",
    prompt: str = "The capital of France is",
    draws: int = 400,
    tokens: int = 2,
    temperature: float = 1.0,
    top_k: int = 6,
    threads: int = 2,
    first_seed: int = 0,
    transformers: bool = True,
    bridge: bool = True,
) -> None:
    """Draw, and compare with the target's own distribution. ``transformers``: its samples as well; ``bridge``: those of
    its ``generate`` with remote drafters."""
    console = Console(stderr=True)
    asked = Prompt(text=prompt)
    pair = TransformersPair(target, drafter, threads=threads, dtype=torch.float32)
    seeds = range(first_seed, first_seed + draws)
    settings: dict[str, Any] = {"tokens": tokens, "temperature": temperature, "top_k": top_k}
    truth = pair.probabilities(asked, **settings)
    counted: dict[str, Sequences] = {}
    drafts: dict[str, dict[str, int]] = {}
    arms = (("transformers, assisted", True), ("transformers, target alone", False)) if transformers else ()
    for name, assisted in arms:
        counted[name] = Counter(pair.sample(asked, seed=seed, assisted=assisted, **settings) for seed in seeds)
    if bridge:
        name = "transformers, remote drafters"
        counted[name], drafts[name] = drawn_by_bridge(pair, drafter, asked, seeds=seeds, **settings)
    del pair
    name = "dragoman, rejection"
    counted[name], drafts[name] = asyncio.run(drawn_by_dragoman(target, drafter, asked, seeds=seeds, **settings))
    found = {name: verdict(counts, truth) | drafts.get(name, {}) for name, counts in counted.items()}
    for name, row in found.items():
        console.print(f"{name}: {row}", highlight=False)
    print(json.dumps({"target": target, "drafter": drafter, "draws": draws, **found}))


if __name__ == "__main__":
    run_command(main)
