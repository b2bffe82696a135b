"""How long a drafter on a GPU takes for a token, and for a token after each of many branches.

    python -m benchmarks.gpu_drafter --model 135M

Weights are random, in the shapes of a known model; what is timed is all that a drafter does for one answer, by the
wall clock: the pass, the draws behind every branch, the transfer, the bookkeeping.
"""

from __future__ import annotations

import random
import statistics
import time
from typing import Annotated, Any

import torch
import typer

from benchmarks.command import run_command
from benchmarks.engine import LLAMA, random_model, seconds
from benchmarks.serving import AnyTokenizer
from drafter_service.kept_caches import KeptCaches
from drafter_service.model_draft_source import ModelDraftSource
from engine.paged_model import PagedModel
from speculation.protocol.messages import Prompt, SessionOffer, SpeculationPlan
from speculation.sampling.params import Rule, SamplingParams
from speculation.sampling.race import RaceNoise

#: At once, of one session.
BRANCHES = 16
DEPTH = 24
REPEATS = 5


class PromptTokenizer(AnyTokenizer):
    """Prompts are random ids, as many as the text says."""

    def encode_prompt(self, text: str) -> list[int]:
        """Of a seed of their own."""
        chance = random.Random(1)
        return [chance.randrange(self.vocab.size) for _ in range(int(text))]


def milliseconds(model: Any, noise: RaceNoise, sampling: SamplingParams, *, prompt: int, branches: int) -> float:
    """Of one answer: after a single path that grows, or after so many at once."""
    times = []
    for _ in range(1 + REPEATS):
        offer = SessionOffer(
            session="s",
            prompt=Prompt(text=str(prompt)),
            sampling=sampling,
            rule=Rule.RACE,
            committed=b"",
            zero_width=0,
            plan=SpeculationPlan(),
        )
        source = ModelDraftSource(KeptCaches(model, 0), noise, offer)
        [choices] = source.expand([()], zero_width=0, choices=branches)  # the prompt's time
        paths: list[tuple[int, ...]] = [(choice.token,) for choice in choices]
        for _ in range(DEPTH):
            started = time.perf_counter()
            rows = source.expand(paths, zero_width=0, choices=1)
            times.append(time.perf_counter() - started)
            paths = [(*path, row[0].token) for path, row in zip(paths, rows, strict=True)]
        source.close()
    return 1000 * statistics.median(times[DEPTH:])


def main(
    model: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(LLAMA)}; may be repeated")] = None,
    prompt_tokens: int = 512,
) -> None:
    """Measure."""
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}", flush=True)
    for name in model or ["135M"]:
        loaded = random_model(name, 4096)
        loaded.tokenizer = PromptTokenizer(loaded.vocab_size)
        drafter = PagedModel(loaded, max_sessions=4)
        noise = RaceNoise(loaded.tokenizer.vocab, device="cuda")
        for sampling in (SamplingParams(), SamplingParams(temperature=0.7, seed=1)):
            found = [
                milliseconds(drafter, noise, sampling, prompt=prompt_tokens, branches=branches)
                for branches in (1, 4, BRANCHES)
            ]
            graph = 1000 * seconds(drafter.engine.shape_for(BRANCHES).graph.replay)
            print(
                f"{name}, temperature {sampling.temperature:g}: one token {found[0]:.2f} ms, 4 branches "
                f"{found[1]:.2f} ms, {BRANCHES} branches {found[2]:.2f} ms (graph {graph:.2f} ms)",
                flush=True,
            )
        drafter.engine.close()


if __name__ == "__main__":
    run_command(main)
