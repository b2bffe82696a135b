"""Whole sequences of a tiny real model, drawn through the whole stack, have the target's distribution.

A model drafter of another vocabulary drafts over gRPC on loopback; every seed gives one sequence of four tokens.
The truth is the model's own distribution of sequences, enumerated without any of the stack's machinery but the model.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import grpc
import pytest
import torch

from drafter_service.model_drafter import ModelDrafter
from language_models.causal_lm import CausalLM
from protos.dragoman.v1 import dragoman_pb2_grpc as pb_grpc
from protos.transport import Address, channel_options
from speculation.messages import Prompt, SpeculationPlan
from speculation.sampling import Rule, SamplingParams
from tests.distributions import ALPHA, detectable_tv, g_test
from tests.service_drivers import drafters, drafting, request, serving
from verifier_service.transformers_engine import TransformersEngine

TOKENS = 4
DRAWS = 2000
TOP_K = 3
TEMPERATURE = 1.6
PROMPT = "a story: "
AT_ONCE = 3


@torch.inference_mode()
def sequence_probabilities(model: CausalLM) -> dict[tuple[int, ...], float]:
    """P(sequence) of every sequence of TOKENS tokens under temperature and top-k, by plain forward passes."""
    prompt = model.tokenizer.prompt_ids(Prompt(text=PROMPT))
    sequences: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(TOKENS):
        longer: dict[tuple[int, ...], float] = {}
        for ids, probability in sequences.items():
            logits = model.forward([*prompt, *ids], model.new_cache())[-1].double()
            top = torch.topk(logits / TEMPERATURE, TOP_K)
            for token, share in zip(top.indices.tolist(), torch.softmax(top.values, 0).tolist(), strict=True):
                longer[*ids, token] = probability * share
        sequences = longer
    return sequences


async def draw(address: Address, rule: Rule) -> tuple[Counter[tuple[int, ...]], int]:
    """Sequences by count, and how many draft tokens were accepted in all."""
    counts: Counter[tuple[int, ...]] = Counter()
    accepted = 0
    seeds = iter(range(DRAWS))

    async def drawing() -> None:
        nonlocal accepted
        for seed in seeds:
            sampling = SamplingParams(temperature=TEMPERATURE, top_k=TOP_K, seed=seed)
            ids: list[int] = []
            async for response in stub.Generate(request(sampling, max_tokens=TOKENS, rule=rule, ignore_end=True)):
                ids += response.chunk.token_ids
                accepted += response.finished.speculation.accepted_tokens
            counts[tuple(ids)] += 1

    async with grpc.aio.insecure_channel(str(address), options=channel_options()) as channel:
        stub = pb_grpc.VerifierServiceStub(channel)
        await asyncio.gather(*(drawing() for _ in range(AT_ONCE)))
    return counts, accepted


@pytest.mark.slow
@pytest.mark.parametrize("rule", [Rule.RACE, Rule.EXACT])
async def test_sequences_through_the_whole_stack_are_the_targets(tiny_qwen2: Path, tiny_llama: Path, rule: Rule):
    target = CausalLM.load(str(tiny_qwen2), dtype="float32", threads=1)
    drafter = ModelDrafter(CausalLM.load(str(tiny_llama), dtype="float32", threads=1))
    plan = SpeculationPlan(stop_threshold=0.0, patience=0.2)
    async with (
        serving(TransformersEngine(target), plan=plan, adaptive=False) as (verifier, address),
        drafting(address, drafter, max_sessions=AT_ONCE),
    ):
        await drafters(verifier, 1)
        counts, accepted = await draw(address, rule)
    truth = sequence_probabilities(target)
    assert set(counts) <= set(truth)
    frequent = [ids for ids, probability in truth.items() if probability * DRAWS >= 5]
    cells = [counts[ids] for ids in frequent]
    probabilities = [truth[ids] for ids in frequent]
    cells.append(DRAWS - sum(cells))
    probabilities.append(1 - sum(probabilities))
    assert accepted > DRAWS / 10  # drafts took part
    # A sampler this far from the truth, in total variation over these cells, would fail.
    assert detectable_tv(DRAWS, len(cells)) < 0.14
    assert g_test(cells, probabilities) > ALPHA
