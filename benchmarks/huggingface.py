"""``generate`` of transformers: plain, with the library's own assistant, and with a remote drafter of Dragoman.

Each prompt is continued greedily by every arm, one right after the other, with the same model object; a ratio is over
the plain run beside it. The drafter is a process behind a link that holds every byte back for half of the round trip;
the library's assistant is in the process itself. "same" counts texts that are those of plain ``generate``.

    python -m benchmarks.huggingface --target qwen2.5-coder-1.5b --drafter smollm2-135m
    python -m benchmarks.huggingface --round-trip 40 --max-prompts 2 --taking-turns

In 16 bits on a CPU the plain arm attends as the bridge does, and texts may differ at near-ties all the same, for plain
``generate`` runs single rows.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Column, Table

from benchmarks.command import run_command
from benchmarks.fault_proxy import FaultProxy, LinkConditions
from benchmarks.prompts import load_prompts
from benchmarks.transformers_arm import Answer, TransformersPair
from dragoman import RemoteDrafting
from dragoman.loop_thread import LoopThread
from dragoman.taking_turns import TAKING_TURNS
from language_models.placement import DTYPES
from speculation.errors import InputError
from speculation.protocol.messages import Prompt
from transport.address import Address

PROMPTS = Path(__file__).with_name("prompts.jsonl")
#: Seconds for a drafter to load and dial.
PATIENCE = 300.0


@contextlib.contextmanager
def drafter_behind(link: LinkConditions, drafting: RemoteDrafting, model: str) -> Iterator[None]:
    """A drafter in a process of its own has dialled in over the link."""
    address = Address.parse(drafting.address, field="listen")
    loop, proxy = LoopThread(), FaultProxy(address.host, address.port, link)
    with contextlib.ExitStack() as stack:
        stack.callback(loop.close)
        loop.run(proxy.__aenter__())
        stack.callback(lambda: loop.run(proxy.__aexit__(None, None, None)))
        command = ["drafter", f"--model={model}", f"--verifier={proxy.address}", "--threads=1"]
        process = subprocess.Popen([sys.executable, "-m", "dragoman", *command], stderr=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        drafting.wait_for_drafters(seconds=PATIENCE)
        yield


def row_of(arm: str, number: int, answer: Answer, plain: Answer, drafting: RemoteDrafting | None) -> dict[str, Any]:
    """One answer beside the plain one of the same prompt."""
    row: dict[str, Any] = {"arm": arm, "prompt": number, "seconds": answer.seconds, "tokens": answer.written}
    row |= {"ratio": plain.seconds / answer.seconds, "same": answer.token_ids == plain.token_ids}
    if drafting is not None:
        done = drafting.last
        row |= {"tokens_per_step": done.tokens_per_step, "accepted": done.accepted_tokens, "drafted": done.draft_tokens}
    return row


def measure(
    pair: TransformersPair, prompts: list[Prompt], drafting: RemoteDrafting, arm: str, *, tokens: int, assisted: bool
) -> Iterator[dict[str, Any]]:
    """Plain, assisted if asked, and drafted, prompt by prompt; the first one once before, to be warm."""
    pair.generate(prompts[0], max_tokens=8)
    pair.generate(prompts[0], max_tokens=8, drafting=drafting)
    for number, prompt in enumerate(prompts):
        plain = pair.generate(prompt, max_tokens=tokens)
        yield row_of("plain", number, plain, plain, None)
        if assisted:
            yield row_of("assisted", number, pair.generate(prompt, max_tokens=tokens, assisted=True), plain, None)
        drafted = pair.generate(prompt, max_tokens=tokens, drafting=drafting)
        yield row_of(arm, number, drafted, plain, drafting)


def summary(rows: list[dict[str, Any]]) -> Table:
    """Medians and quartiles by arm, in the order in which the arms came."""
    title = "generate, greedy: speed over plain generate"
    table = Table(Column("arm", no_wrap=True), box=None, title_justify="left", title=title)
    for name in ("tokens/s", "quartile", "median", "quartile", "per step", "accepted", "same"):
        table.add_column(name, justify="right", no_wrap=True)
    for arm in dict.fromkeys(row["arm"] for row in rows):
        own = [row for row in rows if row["arm"] == arm]
        ratios = [row["ratio"] for row in own]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(own) > 1 else ratios * 3
        steps = [row["tokens_per_step"] for row in own if row.get("tokens_per_step")]
        drafted = sum(row.get("drafted", 0) for row in own)
        table.add_row(
            arm,
            f"{sum(row['tokens'] for row in own) / sum(row['seconds'] for row in own):.1f}",
            f"{low:.2f}",
            f"{middle:.2f}",
            f"{high:.2f}",
            f"{statistics.mean(steps):.2f}" if steps else "",
            f"{sum(row.get('accepted', 0) for row in own) / drafted:.0%}" if drafted else "",
            f"{sum(row['same'] for row in own)}/{len(own)}",
        )
    return table


def main(
    target: str = "qwen2.5-coder-1.5b",
    drafter: str = "smollm2-135m",
    round_trip: Annotated[list[float] | None, typer.Option(help="Milliseconds, several times: 0 and 40")] = None,
    prompts: Path = PROMPTS,
    task: str = "code",
    max_prompts: int = 8,
    max_tokens: int = 64,
    dtype: str = "float32",
    device: str = "cpu",
    threads: int = 1,
    assisted: bool = True,
    taking_turns: bool = False,
) -> None:
    """Compare the arms. ``assisted``: the library's own as well. ``taking_turns``: target and drafter share cores."""
    if dtype not in DTYPES:
        raise InputError("dtype", dtype, "is not known", remedy=f"use one of {', '.join(DTYPES)}")
    asked = load_prompts(prompts, limit=max_prompts, task=task)
    pair = TransformersPair(target, drafter, threads=threads, dtype=DTYPES[dtype], device=torch.device(device))
    rows: list[dict[str, Any]] = []
    console = Console(stderr=True)
    for milliseconds in round_trip or [0.0, 40.0]:
        link = LinkConditions(milliseconds / 2000)
        plan = TAKING_TURNS if taking_turns else None
        with pair.remote_drafting(listen="127.0.0.1:0", plan=plan) as drafting, drafter_behind(link, drafting, drafter):
            arm = f"remote, {milliseconds:g} ms"
            for row in measure(pair, asked, drafting, arm, tokens=max_tokens, assisted=assisted):
                rows.append(row)
                console.print(json.dumps(row), highlight=False, soft_wrap=True)
        assisted = False  # it has no link
    console.print(summary(rows))
    print(json.dumps({"target": target, "drafter": drafter, "dtype": dtype, "rows": rows}))


if __name__ == "__main__":
    run_command(main)
