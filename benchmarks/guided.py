"""What response_format costs or gains: tokens per second with a schema and without, pair by pair, one after the other.

    python -m benchmarks.guided --target smollm2-135m --pairs 12

The text without a schema is what the model says to the same prompt, of at most as many tokens. No drafter takes part:
what is gained is what the schemas force.
"""

from __future__ import annotations

import asyncio
import json
import statistics
from typing import Annotated, Any

import typer

from benchmarks.command import run_command
from dragoman.in_process import Dragoman
from language_models.causal_lm import CausalLM
from speculation.protocol.completion import Completion
from speculation.protocol.guide_spec import GuideSpec
from speculation.sampling.params import SamplingParams
from verifier_service.transformers_engine import TransformersEngine

_NAMES = ("name", "city", "colour", "unit", "status", "level", "kind", "mode", "title", "country")


def schema_of(number: int) -> dict[str, Any]:
    """The ``number``-th of as many as wanted: objects of two to five properties, nested every third time."""
    names = [_NAMES[(number + 3 * place) % len(_NAMES)] + ("" if place < 3 else f"_{place}") for place in range(5)]
    kinds: list[dict[str, Any]] = [
        {"type": "string", "maxLength": 12},
        {"type": "integer", "minimum": 0, "maximum": 99},
        {"type": "boolean"},
        {"enum": ["low", "medium", "high"]},
        {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "maxItems": 3},
    ]
    used = {name: kinds[(number + place) % 5] for place, name in enumerate(names[: 2 + number % 4])}
    schema = {"type": "object", "properties": used, "required": list(used), "additionalProperties": False}
    if number % 3:
        return schema
    outer = {"type": "object", "properties": {"item": schema}, "required": ["item"], "additionalProperties": False}
    return outer


async def compare(dragoman: Dragoman, number: int, max_tokens: int) -> tuple[Completion, Completion]:
    """(guided, not guided)."""
    schema = schema_of(number)
    prompt = f"A JSON object that fits {json.dumps(schema)}:\n"
    sampling = SamplingParams(temperature=0.7, seed=number)
    guide = GuideSpec.json_schema(schema)
    guided = await dragoman.complete(prompt, sampling=sampling, max_tokens=max_tokens, guide=guide)
    tokens = guided.completion_tokens
    return guided, await dragoman.complete(prompt, sampling=sampling, max_tokens=tokens, ignore_end=True)


async def _run(target: str, pairs: int, max_tokens: int) -> None:
    async with Dragoman(TransformersEngine(CausalLM.load(target))) as dragoman:
        ratios, valid = [], 0
        for number in range(pairs):
            guided, free = await compare(dragoman, number, max_tokens)
            if guided.finish_reason == "stop":
                valid += bool(json.loads(guided.text))
            if guided.tokens_per_second and free.tokens_per_second:
                ratios.append(guided.tokens_per_second / free.tokens_per_second)
        low, median, high = statistics.quantiles(ratios, n=4)
    print(
        f"{valid} of {pairs} ended and are JSON; tokens/s with a schema over without: "
        f"{median:.2f} (quartiles {low:.2f} to {high:.2f})"
    )


def main(
    target: Annotated[str, typer.Option(help="Of the texts")] = "smollm2-135m",
    pairs: Annotated[int, typer.Option(help="Schemas", min=2)] = 100,
    max_tokens: Annotated[int, typer.Option(help="Of each text", min=8)] = 120,
) -> None:
    """Compare, and print the quartiles of the ratio."""
    asyncio.run(_run(target, pairs, max_tokens))


if __name__ == "__main__":
    run_command(main)
