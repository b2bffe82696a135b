"""Many sessions at one verifier: how fast each is, how fast all together, and what is left to the device.

    python -m benchmarks.serving --model 8B --sessions 1 --sessions 8 --sessions 32 --temperature 0.7

A target with random weights in the shapes of a known model, on the GPU engine, in this process: what is measured is
session machinery, scheduling, sampling and the step, not a network. ``--rate`` lets requests arrive at random (Poisson,
so many a second); without it all begin at once. Times are the clients'; *busy* is the share of the time from step to
step of all sessions in which the device ran it and its draws.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import statistics
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.clients import Load as Arrivals
from benchmarks.command import run_command
from benchmarks.engine import LLAMA, bandwidth, random_model
from benchmarks.figures import Served, of_arm
from dragoman import Dragoman, SamplingParams
from dragoman.bench.goal import Goal
from engine.paged_engine import ROWS, PagedEngine
from speculation.protocol.messages import Prompt
from speculation.sampling import row_draws
from speculation.text.byte_vocab import ByteVocab
from verifier_service import shared_step


class AnyTokenizer:
    """A vocabulary of as many tokens as the model has; prompts are random ids."""

    def __init__(self, size: int) -> None:
        self.vocab = ByteVocab(tuple(f"{token:05x}".encode() for token in range(size)))

    def encode(self, text: str) -> list[int]:
        """Nothing is drafted here."""
        return []

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """As many as the text says, of its own seed."""
        seed, length = (int(part) for part in (prompt.text or "").split())
        chance = random.Random(seed)
        return [chance.randrange(self.vocab.size) for _ in range(length)]


@dataclass(frozen=True)
class Load:
    """What is asked: so many sessions, each of so many tokens after so long a prompt."""

    sessions: int
    prompt_tokens: int
    max_tokens: int
    temperature: float
    top_p: float
    rate: float


async def run(engine: PagedEngine, load: Load) -> dict[str, Any]:
    """Figures under vLLM's names, and those of steps.

    ``step_ms``, ``device_ms``: of a step of ``step_sessions``, the most there were, from its launch to the next one's,
    and of the device's work.
    """
    arrivals = Arrivals(concurrency=load.sessions, rate=load.rate)

    async def one(model: Dragoman, number: int) -> Served:
        times: list[float] = []
        sampling = SamplingParams(temperature=load.temperature, top_p=load.top_p, seed=number)
        done = await model.complete(
            f"{number} {load.prompt_tokens}",
            sampling=sampling,
            max_tokens=load.max_tokens,
            ignore_end=True,
            on_chunk=lambda chunk: times.append(time.perf_counter()),
        )
        return Served(done, times)

    steps = DeviceSteps(engine)
    async with Dragoman(engine) as model:
        await arrivals.run(partial(one, model), min(4, load.sessions))  # graphs are captured
        steps.begin()
        served, took = await arrivals.run(partial(one, model), load.sessions)
    return of_arm(served, took, Goal()) | {
        "steps": len(steps),
        "step_sessions": steps.sessions,
        "step_ms": steps.milliseconds(),
        "device_ms": steps.device_milliseconds(),
        "busy": steps.device_milliseconds() / max(steps.milliseconds(), 1e-3),
    }


@dataclass(slots=True)
class DeviceStep:
    """When it was launched, for how many sessions, and when the device began it and ended its draws."""

    launched: float
    sessions: int
    began: torch.cuda.Event
    ended: torch.cuda.Event | None = None


class DeviceSteps:
    """Every step of an engine from now on."""

    def __init__(self, engine: PagedEngine) -> None:
        self._steps: list[DeviceStep] = []
        self._began = _event()
        tables = engine.step_shape.tables
        plain, load, draw = type(engine).step, type(tables).load, row_draws.draw_rows

        def load_tables(sequences: Any) -> None:
            load(tables, sequences)
            self._began = _event()

        def step(batch: Any) -> Any:
            logits = plain(engine, batch)
            self._steps.append(DeviceStep(time.perf_counter(), len(batch), self._began))
            return logits

        def draw_rows(*arguments: Any) -> Any:
            launched = draw(*arguments)
            self._steps[-1].ended = _event()
            return launched

        engine.step = step  # type: ignore[method-assign]
        tables.load = load_tables  # type: ignore[method-assign]
        setattr(shared_step, "draw_rows", draw_rows)  # noqa: B010

    def begin(self) -> None:
        """Forget those so far."""
        self._steps.clear()

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def sessions(self) -> int:
        """Of the steps that are looked at: the most that were in one."""
        return max(step.sessions for step in self._steps)

    def milliseconds(self) -> float:
        """Median, from one step of so many sessions to the next one, of as many."""
        most, pairs = self.sessions, itertools.pairwise(self._steps)
        times = [two.launched - one.launched for one, two in pairs if one.sessions == two.sessions == most]
        return 1000 * statistics.median(times or [0.0])

    def device_milliseconds(self) -> float:
        """Median of a step of so many sessions."""
        torch.cuda.synchronize()
        most = self.sessions
        return statistics.median(
            step.began.elapsed_time(step.ended) for step in self._steps if step.sessions == most and step.ended
        )


def _event() -> torch.cuda.Event:
    """Behind all that the device was given so far."""
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def main(
    model: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(LLAMA)}; may be repeated")] = None,
    sessions: Annotated[list[int] | None, typer.Option(help="May be repeated")] = None,
    prompt_tokens: int = 512,
    max_tokens: int = 128,
    temperature: Annotated[list[float] | None, typer.Option(help="May be repeated")] = None,
    top_p: Annotated[list[float] | None, typer.Option(help="May be repeated; 1 is off")] = None,
    rate: Annotated[float, typer.Option(help="Requests a second, arriving at random; 0: all at once")] = 0.0,
    rows: int = ROWS,
    output: Annotated[Path | None, typer.Option(help="JSON")] = None,
) -> None:
    """Measure."""
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}: copies at {bandwidth() / 1e9:,.0f} GB/s",
        flush=True,
    )
    results: list[dict[str, Any]] = []
    for name in model or ["8B"]:
        loaded = random_model(name, prompt_tokens + max_tokens + rows)
        loaded.tokenizer = AnyTokenizer(loaded.vocab_size)
        engine = PagedEngine(loaded, rows=rows)
        for number in sessions or [1, 8, 32]:
            for heat, top in itertools.product(temperature or [0.0, 0.7], top_p or [1.0]):
                load = Load(number, prompt_tokens, max_tokens, heat, top, rate)
                figures = asyncio.run(run(engine, load))
                results.append({"model": name, "rows": rows} | asdict(load) | figures)
                show(name, load, figures)
        engine.close()
    if output is not None:
        output.write_text(json.dumps(results, indent=1))


def show(name: str, load: Load, figures: dict[str, Any]) -> None:
    step = f"step of {figures['step_sessions']:2} {figures['step_ms']:6.2f} ms"
    device = f"device {figures['device_ms']:6.2f} ({figures['busy']:4.0%})"
    speed = f"{figures['output_throughput']:8.1f} tokens/s, {step}, {device}"
    waits = f"TTFT {figures['median_ttft_ms']:6.0f} ms, TPOT {figures['median_tpot_ms']:6.2f} ms"
    tails = f"p99 {figures['p99_tpot_ms']:.2f} ms, ITL p99 {figures['p99_itl_ms']:.1f} ms"
    draws = f"temperature {load.temperature:g}" + (f", top-p {load.top_p:g}" if load.top_p < 1 else "")
    print(f"{name}, {load.sessions:3} sessions, {draws}: {speed}, {waits} ({tails})", flush=True)


if __name__ == "__main__":
    run_command(main)
