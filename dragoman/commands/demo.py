"""The options of `dragoman demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from dragoman.options import (
    MODEL_HELP,
    AsJson,
    Device,
    Dtype,
    Seed,
    Temperature,
)


def demo(
    target: Annotated[str, typer.Option(help=MODEL_HELP)] = "qwen2.5-coder-1.5b",
    drafter: Annotated[str, typer.Option(help=f"{MODEL_HELP}, or lookup")] = "smollm2-135m",
    max_tokens: Annotated[
        int | None,
        typer.Option(help="Tokens of each text at most", show_default="64, fewer where that takes many minutes"),
    ] = None,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    device: Device = "auto",
    target_dtype: Dtype = "auto",
    drafter_dtype: Dtype = "auto",
    target_threads: Annotated[int, typer.Option(help="CPU threads of the target; 0: all cores", min=0, max=1024)] = 0,
    drafter_threads: Annotated[int, typer.Option(help="CPU threads of the drafter; 0: all cores", min=0, max=1024)] = 1,
    as_json: AsJson = False,
) -> None:
    """Run target and drafter here, answer the same prompts with and without the drafter, and compare."""
    import os

    from dragoman.demo import DemoConfig, run_demo
    from transport.security import VARIABLES

    for name in VARIABLES:  # its processes are on loopback, whatever this machine's certificates are for
        os.environ.pop(name, None)

    config = DemoConfig(
        target=target,
        drafter=drafter,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        device=device,
        target_dtype=target_dtype,
        drafter_dtype=drafter_dtype,
        target_threads=target_threads,
        drafter_threads=drafter_threads,
    )
    if not run_demo(config, as_json=as_json):
        raise typer.Exit(1)
