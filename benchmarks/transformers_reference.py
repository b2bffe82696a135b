"""Hugging Face assisted generation on one core, for the wide-area table at 0 ms: target alone, then with the assistant.

taskset -c 0 python -m benchmarks.transformers_reference --prompts prompts.jsonl --output reference.json
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.command import run_command
from benchmarks.prompts import load_prompts
from benchmarks.results import write_results
from benchmarks.transformers_arm import TransformersPair
from dragoman.demo import title


def main(
    target: str = "qwen2.5-coder-1.5b",
    drafter: str = "smollm2-135m",
    prompts: Annotated[Path | None, typer.Option(help="JSONL with prompt or messages in each line")] = None,
    task: str = "",
    limit: int = 6,
    max_tokens: int = 64,
    output: Annotated[Path | None, typer.Option(help="Where the JSON goes  [default: standard output]")] = None,
) -> None:
    """Measure the time per token from the first one on: prefill is the same for both."""
    console = Console(stderr=True)
    pair = TransformersPair(target, drafter, threads=1)
    cells = []
    for prompt in load_prompts(prompts, limit=limit, task=task):
        first = pair.generate(prompt, max_tokens=1, assisted=False)
        alone = pair.generate(prompt, max_tokens=max_tokens, assisted=False)
        assisted = pair.generate(prompt, max_tokens=max_tokens, assisted=True)
        alone_ms, assisted_ms = (
            (text.seconds - first.seconds) * 1000 / max(1, len(text.token_ids) - 1) for text in (alone, assisted)
        )
        cells.append(
            {
                "prompt": title(prompt),
                "target_alone_tpot_ms": alone_ms,
                "assisted_tpot_ms": assisted_ms,
                "speed_up": alone_ms / assisted_ms,
                "identical": alone.token_ids == assisted.token_ids,
            }
        )
        console.print(f"{cells[-1]['speed_up']:.2f}x  {title(prompt)[:60]}", highlight=False)
    median = statistics.median(float(str(cell["speed_up"])) for cell in cells)
    write_results({"setup": {"target": target, "drafter": drafter}, "median": median, "cells": cells}, output)


if __name__ == "__main__":
    run_command(main)
