"""Hugging Face assisted generation on one core, for the wide-area table at 0 ms: target alone, then with the assistant.

taskset -c 0 python -m benchmarks.transformers_reference --prompts prompts.jsonl --output reference.json
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

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
    """Measure whole requests, prefill included."""
    console = Console(stderr=True)
    pair = TransformersPair(target, drafter, threads=1)
    cells = []
    for prompt in load_prompts(prompts, limit=limit, task=task):
        alone = pair.generate(prompt, max_tokens=max_tokens, assisted=False)
        assisted = pair.generate(prompt, max_tokens=max_tokens, assisted=True)
        cells.append(
            {
                "prompt": title(prompt),
                "target_alone_s": alone.seconds,
                "assisted_s": assisted.seconds,
                "speed_up": alone.seconds / assisted.seconds,
                "identical": alone.token_ids == assisted.token_ids,
            }
        )
        console.print(f"{cells[-1]['speed_up']:.2f}x  {title(prompt)[:60]}", highlight=False)
    median = statistics.median(float(str(cell["speed_up"])) for cell in cells)
    write_results({"setup": {"target": target, "drafter": drafter}, "median": median, "cells": cells}, output)


if __name__ == "__main__":
    typer.run(main)
