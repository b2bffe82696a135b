"""Texts of three tokens drawn through a service, their distribution enumerated from plain forward passes, and a G-test.

The settings are written out anew in float64, by their definitions.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import os
from collections import Counter
from collections.abc import Sequence

import torch

from language_models.causal_lm import CausalLM
from speculation.protocol.messages import Prompt, SpeculationPlan
from speculation.sampling.params import Rule, SamplingParams
from tests.support.distributions import detectable_tv, g_test
from tests.support.service_drivers import request, stub_to
from transport.address import Address

TOKENS = 3
#: Of each test. A nightly run draws more: DRAGOMAN_DRAWS=5000 finds a deviation of 0.08.
DRAWS = int(os.environ.get("DRAGOMAN_DRAWS", "320"))
AT_ONCE = 12
PROMPT = "a story: "  # of tests.support.service_drivers.request
#: Patient enough for a drafter on a machine that is busy with other things.
PLAN = SpeculationPlan(stop_threshold=0.0, lookahead=3, patience=5.0)
SETTINGS = {
    "temperature": SamplingParams(temperature=1.6, top_k=3),
    "top-p": SamplingParams(temperature=1.6, top_p=0.6),
    "penalties": SamplingParams(
        temperature=1.5, top_k=3, repetition_penalty=1.3, presence_penalty=0.8, frequency_penalty=0.7, min_p=0.02
    ),
}


def found_by(draws: int) -> float:
    """Total variation over the cells of a test, at which it fails with probability 0.999: 0.31 with 320 draws."""
    return 5.6 / math.sqrt(draws)


def settings_of(rule: Rule) -> list[str]:
    """Everything at once, and under the default rule cuts alone. That each rule keeps each setting is enumerated
    elsewhere; here it is whether processes, messages and batches do."""
    return ["top-p", "penalties"] if rule is Rule.RACE else ["penalties"]


def probabilities(logits: torch.Tensor, params: SamplingParams, prompt: list[int], ids: Sequence[int]) -> torch.Tensor:
    """The settings by their definitions."""
    scores = logits.double()
    for token in {*prompt, *ids}:
        scores[token] *= params.repetition_penalty if scores[token] < 0 else 1 / params.repetition_penalty
    for token, times in Counter(ids).items():
        scores[token] -= params.presence_penalty + params.frequency_penalty * times
    scores = scores / params.temperature
    order = scores.argsort(descending=True)
    if params.top_k:
        scores[order[params.top_k :]] = -math.inf
    p = torch.softmax(scores, 0)
    before = p[order].cumsum(0) - p[order]
    p[order[before >= params.top_p]] = 0.0
    p[p < params.min_p * p.max()] = 0.0
    return p / p.sum()


@torch.inference_mode()
def truth(model: CausalLM, params: SamplingParams) -> dict[tuple[int, ...], float]:
    """All sequences, with their probabilities."""
    prompt = model.tokenizer.prompt_ids(Prompt(text=PROMPT))
    sequences: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(TOKENS):
        longer: dict[tuple[int, ...], float] = {}
        for ids, share in sequences.items():
            logits = model.forward([*prompt, *ids], model.new_cache())[-1]
            p = probabilities(logits, params, prompt, ids)
            for token in p.nonzero().squeeze(-1).tolist():
                longer[*ids, token] = share * float(p[token])
        sequences = longer
    return sequences


async def draw(
    address: Address, rule: Rule, settings: str, *, draws: int = DRAWS
) -> tuple[Counter[tuple[int, ...]], int]:
    """Sequences by count, and draft tokens accepted in all."""
    counts: Counter[tuple[int, ...]] = Counter()
    accepted = 0
    seeds = iter(range(draws))
    async with stub_to(address) as stub:

        async def drawing() -> None:
            nonlocal accepted
            for seed in seeds:
                params = dataclasses.replace(SETTINGS[settings], seed=seed)
                ids: list[int] = []
                async for response in stub.Generate(request(params, max_tokens=TOKENS, rule=rule, ignore_end=True)):
                    ids += response.chunk.token_ids
                    accepted += response.finished.speculation.accepted_tokens
                counts[tuple(ids)] += 1

        await asyncio.gather(*(drawing() for _ in range(AT_ONCE)))
    return counts, accepted


def p_value(counts: Counter[tuple[int, ...]], model: CausalLM, settings: str) -> float:
    """Of what ``draw`` counted. A stack that is ``found_by`` away from the truth has less than ALPHA, nearly always."""
    draws = counts.total()
    exact = truth(model, SETTINGS[settings])
    frequent = [ids for ids, share in exact.items() if share * draws >= 8]
    cells = [counts[ids] for ids in frequent]
    shares = [exact[ids] for ids in frequent]
    rest = 1 - sum(shares)
    if rest * draws >= 5:
        cells.append(draws - sum(cells))
        shares.append(rest)
    else:  # too little for a cell of its own: to the smallest one
        cells[-1] += draws - sum(cells)
        shares[-1] += rest
    assert detectable_tv(draws, len(cells)) < found_by(draws)
    return g_test(cells, shares) if set(counts) <= set(exact) else 0.0
