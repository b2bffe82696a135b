"""Target alone, Hugging Face assisted generation and Dragoman: the same two models, one machine, one run.

Prompt by prompt all arms answer in turn, so that a machine that gets slower or faster is fair to all; what counts are
the ratios. Throughput is that of whole requests, prefill included. Field names are those of vLLM's bench.

    python -m benchmarks.local_pair --prompts prompts.jsonl --limit 8 --output local_pair.json
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.command import run_command
from benchmarks.figures import of_answer, of_completion
from benchmarks.prompts import load_prompts
from benchmarks.results import write_results
from benchmarks.transformers_arm import TransformersPair
from dragoman.client import Client
from dragoman.demo import title
from dragoman.processes import ChildProcess, child
from dragoman.taking_turns import TAKING_TURNS_OPTIONS
from speculation.protocol.messages import ChatMessage, Prompt

ARMS = ("target_alone", "dragoman", "transformers", "transformers_assisted")
WARM_UP = Prompt(messages=(ChatMessage("user", "Count to ten."),))
#: The memory check: so many sessions of about so many tokens at once.
MEMORY_SESSIONS = 4
MEMORY_TOKENS = 2000


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Bench:
    """All arms, ready to answer."""

    def __init__(self, client: Client, verifier: ChildProcess, reference: TransformersPair | None) -> None:
        self._client = client
        self._verifier = verifier
        self._reference = reference

    async def measure(self, prompt: Prompt, *, number: int, max_tokens: int) -> dict[str, Any]:
        """One prompt through every arm, the order turning from prompt to prompt."""
        row: dict[str, Any] = {"prompt": title(prompt)}
        texts: dict[str, bytes] = {}
        arms = ARMS if self._reference is not None else ARMS[:2]
        for arm in arms[number % len(arms) :] + arms[: number % len(arms)]:
            if arm.startswith("transformers"):
                assert self._reference is not None
                answer = self._reference.generate(
                    prompt, max_tokens=max_tokens, assisted=arm == "transformers_assisted"
                )
                row[arm], texts[arm] = of_answer(answer), answer.data
            else:
                completion = await self._client.complete(prompt, max_tokens=max_tokens, draft=arm == "dragoman")
                row[arm], texts[arm] = of_completion(completion), completion.data
        row["identical"] = texts["dragoman"] == texts["target_alone"]
        for arm in arms[1:]:
            row[f"{arm}_speed_up"] = row[arm]["output_throughput"] / row["target_alone"]["output_throughput"]
        if self._reference is not None:
            row["assisted_identical"] = texts["transformers_assisted"] == texts["transformers"]
            assisted = row["transformers_assisted"]["output_throughput"]
            row["dragoman_over_assisted"] = row["dragoman"]["output_throughput"] / assisted
            row["assisted_over_transformers"] = assisted / row["transformers"]["output_throughput"]
        return row

    async def memory(self) -> dict[str, Any]:
        """Peak memory of the verifier while MEMORY_SESSIONS long sessions are open, over the weights."""
        weights = (await self._client.describe()).parameter_bytes
        long = Prompt(messages=(ChatMessage("user", "the heron waits for a fish, " * (MEMORY_TOKENS // 7)),))
        texts = [asyncio.create_task(self._client.complete(long, max_tokens=8)) for _ in range(MEMORY_SESSIONS)]
        peak = kv_cache = 0
        while not all(text.done() for text in texts):
            peak = max(peak, resident_bytes(self._verifier.pid))
            kv_cache = max(kv_cache, (await self._client.describe()).kv_cache_bytes)
            await asyncio.sleep(0.05)
        completions = await asyncio.gather(*texts)
        return {
            "sessions": MEMORY_SESSIONS,
            "prompt_tokens": completions[0].prompt_tokens,
            "weights_bytes": weights,
            "peak_resident_bytes": peak,
            "peak_kv_cache_bytes": kv_cache,
            "over_weights_gib": (peak - weights) / 2**30,
        }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the prompts, and whether every text was identical."""
    ratios = [name for name in rows[0] if name.endswith(("_speed_up", "_over_assisted", "_over_transformers"))]
    found: dict[str, Any] = {f"median_{name}": statistics.median(row[name] for row in rows) for name in ratios}
    found["identical"] = all(row["identical"] for row in rows)
    found["mean_acceptance_length"] = statistics.mean(row["dragoman"]["mean_acceptance_length"] for row in rows)
    for arm in ARMS[:2]:
        found[f"{arm}_overhead_p50_ms"] = statistics.median(row[arm]["overhead_p50_ms"] for row in rows)
    found["bytes_per_token"] = statistics.median(row["dragoman"]["bytes_per_token"] for row in rows)
    return found


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """Output tokens per second of every arm, prompt by prompt."""
    arms = [arm for arm in ARMS if arm in rows[0]]
    table = Table("prompt", *(arm.replace("_", "\n") for arm in arms), "speed-up", "tokens\nper step", "same text")
    for row in rows:
        throughput = [f"{row[arm]['output_throughput']:.2f}" for arm in arms]
        length = row["dragoman"]["mean_acceptance_length"]
        same = "yes" if row["identical"] else "NO"
        table.add_row(row["prompt"][:40], *throughput, f"{row['dragoman_speed_up']:.2f}x", f"{length:.2f}", same)
    console.print(table)


async def run(
    target: str,
    drafter: str,
    prompts: list[Prompt],
    *,
    max_tokens: int,
    target_threads: int,
    drafter_threads: int,
    reference: bool,
    console: Console,
) -> dict[str, Any]:
    async with contextlib.AsyncExitStack() as stack:
        options = [f"--model={target}", "--listen=127.0.0.1:0", f"--threads={target_threads}"]
        verifying = child("verifier", ["verifier", *options, *TAKING_TURNS_OPTIONS])
        verifier = await stack.enter_async_context(verifying)
        address = (await verifier.ready())["address"]
        options = [f"--model={drafter}", f"--verifier={address}", f"--threads={drafter_threads}"]
        drafting = await stack.enter_async_context(child("drafter", ["drafter", *options]))
        await drafting.ready()
        client = await stack.enter_async_context(Client(address))
        pair = TransformersPair(target, drafter, threads=target_threads) if reference else None
        bench = Bench(client, verifier, pair)
        await bench.measure(WARM_UP, number=0, max_tokens=12)
        rows = []
        for number, prompt in enumerate(prompts):
            rows.append(await bench.measure(prompt, number=number, max_tokens=max_tokens))
            ratios = {name: round(value, 2) for name, value in rows[-1].items() if isinstance(value, float)}
            console.print(f"{number + 1} of {len(prompts)}: {ratios}", highlight=False)
        return {"summary": summary(rows), "memory": await bench.memory(), "prompts": rows}


def main(
    target: str = "qwen2.5-coder-1.5b",
    drafter: str = "smollm2-135m",
    prompts: Annotated[Path | None, typer.Option(help="JSONL with prompt or messages in each line")] = None,
    task: str = "",
    limit: int = 8,
    max_tokens: int = 64,
    target_threads: Annotated[int, typer.Option(help="CPU threads of the target; 0: all cores")] = 0,
    drafter_threads: int = 1,
    reference: Annotated[bool, typer.Option(help="Hugging Face transformers as well")] = True,
    output: Annotated[Path | None, typer.Option(help="Where the JSON goes  [default: standard output]")] = None,
) -> None:
    """Compare, pair by pair."""
    console = Console(stderr=True)
    threads = target_threads or len(os.sched_getaffinity(0))
    setup: dict[str, Any] = {
        "target": target,
        "drafter": drafter,
        "max_tokens": max_tokens,
        "target_threads": threads,
        "drafter_threads": drafter_threads,
    }
    found = asyncio.run(
        run(
            target,
            drafter,
            load_prompts(prompts, limit=limit, task=task),
            max_tokens=max_tokens,
            target_threads=threads,
            drafter_threads=drafter_threads,
            reference=reference,
            console=console,
        )
    )
    show(found["prompts"], console)
    console.print({**found["summary"], **found["memory"]})
    write_results({"setup": setup, **found}, output)


if __name__ == "__main__":
    run_command(main)
