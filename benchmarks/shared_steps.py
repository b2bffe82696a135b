"""How much faster sessions are stepped together than one after another, on a CPU.

    python -m benchmarks.shared_steps --model smollm2-135m --model gemma3-270m --dtype bfloat16 --dtype float32

The same steps of the same sessions run both ways in turn, so that what else the machine does meets both alike: the
figure is the median of the pairs' ratios, by the clock and by the processor's own time. Before that, both have to give
the same logits: to the bit in bfloat16, up to rounding in float32.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from benchmarks.command import run_command
from language_models.causal_lm import CausalLM
from speculation.drafts.candidates import CandidateTree
from speculation.verification.step import Step
from verifier_service.engine import OneByOne
from verifier_service.transformers_engine import TransformersEngine, TransformersSlot

Batch = list[tuple[TransformersSlot, Step]]
#: A token of the prompts and drafts, by its number: which ones they are changes no step's time.
_TOKENS = 5000


@dataclass(frozen=True)
class Figures:
    """Milliseconds of a step of all sessions, medians; ratios of one after another over together, medians of pairs."""

    model: str
    dtype: str
    threads: int
    sessions: int
    rows_each: int
    cached_tokens: int
    one_by_one_ms: float
    together_ms: float
    ratio: float
    cpu_time_ratio: float
    largest_difference: float


def measure(
    model: CausalLM, *, threads: int, sessions: int, rows_each: int, cached_tokens: int, pairs: int
) -> Figures | None:
    """None for more rows than a pass of the model may have. Raises ValueError if the logits are others."""
    engine = TransformersEngine(model)
    if engine.rows_per_step is None or sessions * rows_each > engine.rows_per_step:
        return None
    batch: Batch = []
    for number in range(sessions):
        prompt = [(100 + 13 * number + 7 * place) % _TOKENS for place in range(cached_tokens + 1)]
        draft = CandidateTree.chain([(11 + 5 * number + place) % _TOKENS for place in range(rows_each - 1)])
        batch.append((engine.open(prompt), Step(5 + number, draft)))
    ways = (lambda: OneByOne.step(engine, batch)), (lambda: engine.step(batch))
    alone, together = (torch.cat(_run(batch, way)[2]) for way in ways)
    difference = (alone - together).abs().max().item()
    if not (difference == 0 if model.dtype_name == "bfloat16" else difference <= 1e-3 * alone.std().item()):
        raise ValueError(f"{model.name} in {model.dtype_name}: logits differ by {difference}")
    clock: list[tuple[float, float]] = []
    processor: list[tuple[float, float]] = []
    for _ in range(pairs):
        (one, one_cpu, _), (all_, all_cpu, _) = (_run(batch, way) for way in ways)
        clock.append((one, all_))
        processor.append((one_cpu, all_cpu))
    return Figures(
        model=model.name,
        dtype=model.dtype_name,
        threads=threads,
        sessions=sessions,
        rows_each=rows_each,
        cached_tokens=cached_tokens,
        one_by_one_ms=1000 * statistics.median(one for one, _ in clock),
        together_ms=1000 * statistics.median(all_ for _, all_ in clock),
        ratio=statistics.median(one / all_ for one, all_ in clock),
        cpu_time_ratio=statistics.median(one / all_ for one, all_ in processor),
        largest_difference=difference,
    )


def _run(batch: Batch, step: Callable[[], list[Tensor]]) -> tuple[float, float, list[Tensor]]:
    """(seconds by the clock, of the processor, logits) of a step that is forgotten."""
    clock, processor = time.perf_counter(), time.process_time()
    logits = step()
    took = time.perf_counter() - clock, time.process_time() - processor
    for slot, _ in batch:
        slot.keep(())
    return *took, logits


def main(
    model: Annotated[list[str] | None, typer.Option(help="Embedded name, folder or id; may be repeated")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="May be repeated")] = None,
    sessions: Annotated[list[int] | None, typer.Option(help="May be repeated")] = None,
    rows: Annotated[list[int] | None, typer.Option(help="Of each session; may be repeated")] = None,
    context: Annotated[list[int] | None, typer.Option(help="Cached tokens of each; may be repeated")] = None,
    threads: int = 1,
    pairs: Annotated[int, typer.Option(help="Steps measured each way")] = 15,
    output: Annotated[Path | None, typer.Option(help="JSON")] = None,
) -> None:
    """Measure."""
    results: list[Figures] = []
    for name in model or ["smollm2-135m"]:
        for kind in dtype or ["bfloat16", "float32"]:
            loaded = CausalLM.load(name, device="cpu", dtype=kind, threads=threads)
            if reason := loaded.self_test.unshared:
                print(f"{name} in {kind} shares no passes: {reason}", flush=True)
                continue
            for cached in context or [300]:
                for number in sessions or [4]:
                    for each in rows or [1, 4, 8]:
                        found = measure(
                            loaded,
                            threads=threads,
                            sessions=number,
                            rows_each=each,
                            cached_tokens=cached,
                            pairs=pairs,
                        )
                        if found is not None:
                            results.append(found)
                            show(found)
            del loaded
    if output is not None:
        output.write_text(json.dumps([asdict(found) for found in results], indent=1))


def show(found: Figures) -> None:
    print(
        f"{found.model} {found.dtype}, {found.threads} thread(s), {found.sessions} sessions x {found.rows_each} rows "
        f"after {found.cached_tokens} tokens: one by one {found.one_by_one_ms:.0f} ms, together "
        f"{found.together_ms:.0f} ms: {found.ratio:.2f} times as fast (by CPU time {found.cpu_time_ratio:.2f}); "
        f"logits differ by {found.largest_difference:.2g}",
        flush=True,
    )


if __name__ == "__main__":
    run_command(main)
