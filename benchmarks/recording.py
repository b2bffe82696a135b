"""What a pair says on real prompts, written down once: the target's greedy text, and how the drafter goes on from
every token boundary of it. Simulations and emulated fast pairs replay it, on any machine, without the models.

    python -m benchmarks.recording --prompts prompts.jsonl --limit 8 --output recording.json
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import typer
from rich.console import Console

from benchmarks.command import run_command
from benchmarks.prompts import load_prompts
from benchmarks.results import read_results
from drafter_service import draft_source
from drafter_service.model_drafter import ModelDrafter
from dragoman.demo import title
from language_models.causal_lm import CausalLM
from speculation.protocol.messages import Prompt, SessionOffer, SpeculationPlan
from speculation.sampling.params import Rule, SamplingParams

#: The drafter's first choice and its runners-up.
CHOICES: Final = 6


@dataclass(frozen=True, slots=True)
class RecordedText:
    """One prompt, as the target reads it. Bytes are kept as latin-1 strings, so that any cut is valid JSON.

    ``prompt_ids``, ``token_ids``, ``tokens``: the target's. ``drafts[i]``: the drafter's greedy tokens after the
    first ``i`` target tokens, each with its runners-up: [[text, probability], ...].
    """

    title: str
    prompt_ids: list[int]
    token_ids: list[int]
    tokens: list[str]
    drafts: list[list[list[tuple[str, float]]]]


def save(path: Path, texts: list[RecordedText], setup: dict[str, Any]) -> None:
    path.write_text(json.dumps({"setup": setup, "texts": [dataclasses.asdict(text) for text in texts]}) + "\n")


def load(path: Path) -> list[RecordedText]:
    """Raises InputError for a file that is no recording."""
    found = read_results(path, field="recording", holds="texts", made_by="benchmarks.recording")
    return [RecordedText(**text) for text in found["texts"]]


@torch.inference_mode()
def target_tokens(target: CausalLM, prompt: Prompt, tokens: int) -> list[int]:
    """The target's greedy text, token by token; without its end token."""
    ids = target.tokenizer.prompt_ids(prompt)
    cache = target.new_cache()
    target.prefill(ids[:-1], cache)
    last, text = ids[-1], list[int]()
    while len(text) < tokens:
        last = int(target.forward([last], cache)[-1].argmax())
        if last in target.tokenizer.vocab.end_ids:
            break
        text.append(last)
    return text


def draft(source: draft_source.DraftSource, depth: int) -> list[list[tuple[str, float]]]:
    """Greedy tokens from the source's root on, with their runners-up."""
    path: draft_source.Path = ()
    drafted: list[list[tuple[str, float]]] = []
    while len(drafted) < depth:
        [choices] = source.expand([path], zero_width=0, choices=CHOICES)
        if not choices[0].text:
            break
        drafted.append([(choice.text.decode("latin-1"), round(choice.confidence, 4)) for choice in choices])
        path += (choices[0].token,)
    return drafted


def record(target: CausalLM, drafter: ModelDrafter, prompt: Prompt, *, tokens: int, depth: int) -> RecordedText:
    ids = target_tokens(target, prompt, tokens)
    texts = [target.tokenizer.vocab.bytes_of(token) for token in ids]
    source = drafter.open(
        SessionOffer(
            session="record",
            prompt=prompt,
            sampling=SamplingParams(),
            rule=Rule.RACE,
            committed=b"",
            zero_width=0,
            plan=SpeculationPlan(),
        )
    )
    drafts, done = [], 0
    for text in texts:
        drafts.append(draft(source, depth))
        source.move((), done, text)
        done += len(text)
    prompt_ids = target.tokenizer.prompt_ids(prompt)
    return RecordedText(
        title=title(prompt),
        prompt_ids=prompt_ids,
        token_ids=ids,
        tokens=[text.decode("latin-1") for text in texts],
        drafts=drafts,
    )


def main(
    output: Annotated[Path, typer.Option()],
    target: str = "qwen2.5-coder-1.5b",
    drafter: str = "smollm2-135m",
    prompts: Annotated[Path | None, typer.Option(help="JSONL with prompt or messages in each line")] = None,
    task: str = "",
    limit: int = 8,
    tokens: int = 64,
    depth: int = 10,
    drafter_dtype: str = "int8",
    threads: int = 2,
    device: Annotated[str, typer.Option(help="int8 drafters run on a CPU only")] = "cpu",
) -> None:
    """Record."""
    console = Console(stderr=True)
    loaded = CausalLM.load(target, device=device, threads=threads)
    drafting = ModelDrafter(CausalLM.load(drafter, device=device, threads=threads, dtype=drafter_dtype))
    texts = []
    for prompt in load_prompts(prompts, limit=limit, task=task):
        texts.append(record(loaded, drafting, prompt, tokens=tokens, depth=depth))
        console.print(f"{len(texts)}: {texts[-1].title}", highlight=False)
    save(output, texts, {"target": target, "drafter": drafter, "drafter_dtype": drafter_dtype, "depth": depth})


if __name__ == "__main__":
    run_command(main)
