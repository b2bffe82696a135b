"""Texts drawn through two processes have the target's distribution, under every rule and kind of setting.

The drafter is a process of its own with another vocabulary (and, once, the same); every seed gives one sequence. The
truth is enumerated from plain forward passes, with the settings written out anew in float64. Each test states the
smallest total variation that it would find, and bugs planted in a twin of the stack are found by it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
import torch

from drafter_service.draft_source import Path as TokenPath
from drafter_service.model_drafter import ModelDrafter
from drafter_service.proposing_source import ProposingSource
from dragoman.processes import child
from language_models.causal_lm import CausalLM
from speculation.protocol.messages import Prompt, SpeculationPlan
from speculation.protocol.proposal import Proposal
from speculation.sampling.alignment import Alignment
from speculation.sampling.params import Rule, SamplingParams
from speculation.sessions.drafter_session import DraftToken
from speculation.verification import rules
from tests.support import tiny_models
from tests.support.distributions import ALPHA, detectable_tv, g_test
from tests.support.service_drivers import drafters, drafting, request, serving, stub_to
from transport.address import Address
from verifier_service.transformers_engine import TransformersEngine
from verifier_service.verifier import Verifier

TOKENS = 3
DRAWS = 500
AT_ONCE = 3
PROMPT = "a story: "  # of tests.support.service_drivers.request
PLAN = SpeculationPlan(stop_threshold=0.0, lookahead=3, patience=0.5)
#: Total variation over the cells of a test, at which it fails with probability 0.999.
FOUND = 0.25
SETTINGS = {
    "temperature": SamplingParams(temperature=1.6, top_k=3),
    "top-p": SamplingParams(temperature=1.6, top_p=0.6),
    "penalties": SamplingParams(
        temperature=1.5, top_k=3, repetition_penalty=1.3, presence_penalty=0.8, frequency_penalty=0.7, min_p=0.02
    ),
}


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


async def draw(address: Address, rule: Rule, settings: str) -> tuple[Counter[tuple[int, ...]], int]:
    """Sequences by count, and draft tokens accepted in all."""
    counts: Counter[tuple[int, ...]] = Counter()
    accepted = 0
    seeds = iter(range(DRAWS))
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
    exact = truth(model, SETTINGS[settings])
    frequent = [ids for ids, share in exact.items() if share * DRAWS >= 8]
    cells = [counts[ids] for ids in frequent]
    shares = [exact[ids] for ids in frequent]
    rest = 1 - sum(shares)
    if rest * DRAWS >= 5:
        cells.append(DRAWS - sum(cells))
        shares.append(rest)
    else:  # too little for a cell of its own: to the smallest one
        cells[-1] += DRAWS - sum(cells)
        shares[-1] += rest
    assert detectable_tv(DRAWS, len(cells)) < FOUND
    return g_test(cells, shares) if set(counts) <= set(exact) else 0.0


@pytest.fixture(scope="module")
def target(tiny_qwen2: Path) -> CausalLM:
    return CausalLM.load(str(tiny_qwen2), dtype="float32", threads=1)


@pytest.fixture(scope="module")
def drafter(tmp_path_factory: pytest.TempPathFactory, target: CausalLM) -> Path:
    """Trained on the same text, with fewer and other tokens."""
    path = tiny_models.tiny_llama(tmp_path_factory.mktemp("models") / "small-llama", vocab=300)
    ours = CausalLM.load(str(path), dtype="float32", threads=1).tokenizer.vocab
    alignment = Alignment(ours, target.tokenizer.vocab)
    assert not alignment.same and alignment.common < target.vocab_size - 20
    return path


async def check(target: CausalLM, folder: Path, rule: Rule, kinds: Iterable[str]) -> None:
    """The drafter is a process of its own."""
    async with serving(TransformersEngine(target), plan=PLAN, adaptive=False) as (verifier, address):
        options = [f"--model={folder}", f"--verifier={address}", "--dtype=float32", "--threads=1", "--max-sessions=3"]
        async with child("drafter", ["drafter", *options]) as process:
            await process.ready()
            await drafters(verifier, 1)
            for settings in kinds:
                counts, accepted = await draw(address, rule, settings)
                assert accepted > DRAWS / 10, "drafts took part"
                assert p_value(counts, target, settings) > ALPHA, settings


@pytest.mark.slow
@pytest.mark.parametrize("rule", Rule.concrete())
async def test_texts_through_two_processes_are_the_targets(target: CausalLM, drafter: Path, rule: Rule):
    await check(target, drafter, rule, SETTINGS)


@pytest.mark.slow
async def test_texts_of_a_pair_with_one_vocabulary_are_the_targets(target: CausalLM, tiny_llama: Path):
    model = CausalLM.load(str(tiny_llama), dtype="float32", threads=1)
    assert model.tokenizer.vocab.content_hash == target.tokenizer.vocab.content_hash
    assert model.vocab_size != target.vocab_size, "padded"
    await check(target, tiny_llama, Rule.REJECTION, ["temperature"])


# ---- the tests are tested: the same stack in one process, with a bug in it ------------------------------------------


class PermutingSource(ProposingSource):
    """Planted bug: the probabilities stand at other tokens than they belong to."""

    def expand(self, paths: Sequence[TokenPath], *, zero_width: int, choices: int) -> list[list[DraftToken]]:
        rows = super().expand(paths, zero_width=zero_width, choices=choices)
        return [[permuted(token) for token in row] for row in rows]


def permuted(token: DraftToken) -> DraftToken:
    drawn = token.proposal
    if drawn is None:
        return token
    weights = (*drawn.weights[1:], drawn.weights[0])
    return dataclasses.replace(token, proposal=Proposal(drawn.token, drawn.ids, weights))


async def twin(target: CausalLM, folder: Path) -> float:
    async with serving(TransformersEngine(target), plan=PLAN, adaptive=False) as (verifier, address):
        return await with_drafter(verifier, address, target, folder)


async def with_drafter(verifier: Verifier, address: Address, target: CausalLM, folder: Path) -> float:
    model = CausalLM.load(str(folder), dtype="float32", threads=1)
    async with drafting(address, ModelDrafter(model), max_sessions=AT_ONCE):
        await drafters(verifier, 1)
        counts, accepted = await draw(address, Rule.REJECTION, "temperature")
        assert accepted > DRAWS / 10
        return p_value(counts, target, "temperature")


@pytest.mark.slow
@pytest.mark.parametrize("bug", ["none", "resample from p", "q permuted"])
async def test_planted_bugs_are_found(
    target: CausalLM, drafter: Path, monkeypatch: pytest.MonkeyPatch, bug: str
) -> None:
    """And the twin without one passes, so it is the bug that is found."""
    if bug == "resample from p":
        monkeypatch.setattr(rules, "residual", lambda p, proposal: p)
    if bug == "q permuted":
        monkeypatch.setattr("drafter_service.model_drafter.ProposingSource", PermutingSource)
    assert (await twin(target, drafter) < ALPHA) is (bug != "none")
