"""Warping against a slow oracle in plain Python floats, and the cases where float32 or ties could go wrong."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from speculation.errors import InputError, ModelError
from speculation.sampling.params import SamplingParams
from speculation.sampling.warpers import GUESSES, penalise, warp

INF = math.inf
#: Mass within this of top_p: float32 and the oracle may cut differently, so such examples are not compared.
MARGIN = 1e-5


def oracle(logits, params: SamplingParams, prompt=(), generated=None) -> list[float] | None:
    """Probabilities; None where a cut is too close to call."""
    generated = generated or {}
    scores = [logit + params.logit_bias.get(token, 0.0) for token, logit in enumerate(logits)]
    for token in {*prompt, *generated}:
        r = params.repetition_penalty
        scores[token] = scores[token] / r if scores[token] > 0 else scores[token] * r
    for token, times in generated.items():
        scores[token] -= params.presence_penalty + params.frequency_penalty * times
    order = sorted(range(len(scores)), key=lambda token: (-scores[token], token))
    weight = [math.exp((score - max(scores)) / params.temperature) for score in scores]
    kept = order[: params.top_k] if params.top_k else order
    if params.top_p < 1:
        total = sum(weight[token] for token in kept)
        mass, cut = 0.0, len(kept)
        for position, token in enumerate(kept):
            mass += weight[token] / total
            if abs(mass - params.top_p) < MARGIN:
                return None
            if mass >= params.top_p:
                cut = position + 1
                break
        kept = kept[:cut]
    if params.min_p > 0:
        if any(abs(weight[token] / params.min_p - 1) < MARGIN for token in kept):
            return None
        kept = [token for token in kept if weight[token] >= params.min_p]
    total = sum(weight[token] for token in kept)
    return [weight[token] / total if token in kept else 0.0 for token in range(len(scores))]


# Halves, so that ties are common and sums with the penalties below are exact in float32.
LOGITS = st.lists(st.integers(-12, 12).map(lambda n: n / 2), min_size=1, max_size=9)
HALVES = st.integers(-4, 4).map(lambda n: n / 2)


@st.composite
def cases(draw):
    logits = draw(LOGITS)
    ids = st.integers(0, len(logits) - 1)
    params = SamplingParams(
        temperature=draw(st.sampled_from([0.25, 0.5, 1.0, 2.0])),
        top_k=draw(st.integers(0, 11)),
        top_p=draw(st.sampled_from([1e-9, 0.1, 0.5, 0.77, 0.95, 1.0])),
        min_p=draw(st.sampled_from([0.0, 0.03, 0.3, 0.9])),
        repetition_penalty=draw(st.sampled_from([0.5, 1.0, 2.0])),
        presence_penalty=draw(HALVES),
        frequency_penalty=draw(HALVES),
        logit_bias=draw(st.dictionaries(ids, HALVES, max_size=3)),
    )
    prompt = draw(st.sets(ids, max_size=3))
    generated = draw(st.dictionaries(ids, st.integers(1, 3), max_size=3))
    return logits, params, prompt, generated


@settings(deadline=None, max_examples=500)
@given(cases())
def test_against_the_oracle(case):
    logits, params, prompt, generated = case
    expected = oracle(*case)
    assume(expected is not None)
    given_logits = torch.tensor(logits)
    log_p = warp(given_logits, params, prompt_ids=torch.tensor(sorted(prompt), dtype=torch.int64), generated=generated)
    assert log_p.dtype == torch.float32
    assert log_p.exp().tolist() == pytest.approx(expected, abs=1e-5)
    assert [p == 0 for p in expected] == [value == -INF for value in log_p.tolist()]
    assert given_logits.tolist() == logits, "the model's logits are left alone"


@settings(deadline=None)
@given(cases())
def test_greedy_is_all_on_the_first_of_the_highest(case):
    logits, params, prompt, generated = case
    greedy = SamplingParams(repetition_penalty=params.repetition_penalty, logit_bias=params.logit_bias)
    ids = torch.tensor(sorted(prompt), dtype=torch.int64)
    scores = penalise(torch.tensor(logits), greedy, prompt_ids=ids, generated=generated).tolist()
    log_p = warp(torch.tensor(logits), greedy, prompt_ids=ids, generated=generated).tolist()
    assert log_p == [0.0 if token == scores.index(max(scores)) else -INF for token in range(len(scores))]


def support(log_p: torch.Tensor) -> list[int]:
    return log_p.isfinite().nonzero().squeeze(-1).tolist()


def test_ties_at_a_cut_keep_the_lowest_ids():
    level = torch.zeros(4000)
    assert support(warp(level, SamplingParams(1.0, top_k=7))) == list(range(7))
    assert support(warp(level, SamplingParams(1.0, top_p=0.00174))) == list(range(7))
    bumps = torch.zeros(4000)
    bumps[[5, 3999]] = 1.0
    assert support(warp(bumps, SamplingParams(1.0, top_k=4))) == [0, 1, 5, 3999]


@pytest.mark.parametrize("size", [GUESSES[0], GUESSES[0] + 1, 5000, 20_000, 40_000])
@pytest.mark.parametrize("p", [0.02, 0.2, 0.9, 0.99999])
def test_top_p_keeps_the_smallest_set_whatever_its_size(size, p):
    logits = torch.randn(size, generator=torch.Generator().manual_seed(size)) / 4
    log_p = warp(logits, SamplingParams(1.0, top_p=p))
    kept = support(log_p)
    full = logits.double().softmax(-1)
    smallest = float(full[kept].min())
    assert float(full[kept].sum()) >= p - 1e-6
    assert float(full[kept].sum()) - smallest < p + 1e-6
    assert (full > smallest * (1 + 1e-9)).sum() < len(kept)
    assert float(log_p.double().exp().sum()) == pytest.approx(1, abs=1e-5)


def test_at_least_one_token_is_kept():
    for params in (SamplingParams(1.0, top_p=1e-300), SamplingParams(1.0, min_p=1.0), SamplingParams(1.0, top_k=1)):
        assert warp(torch.tensor([0.0, 2.0, 1.0]), params).tolist() == [-INF, 0.0, -INF]
    assert support(warp(torch.tensor([2.0, 0.0, 2.0]), SamplingParams(1.0, min_p=1.0))) == [0, 2]


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-30, 1e-7])
def test_tiny_temperatures_tend_to_greedy(temperature):
    assert warp(torch.tensor([1.0, 3.0, 2.9]), SamplingParams(temperature)).exp().tolist() == [0, 1, 0]


@pytest.mark.parametrize("temperature", [1e7, 1e30, 1e300])
def test_huge_temperatures_tend_to_uniform(temperature):
    log_p = warp(torch.tensor([1.0, 3.0, -INF]), SamplingParams(temperature))
    assert log_p.tolist() == pytest.approx([-math.log(2), -math.log(2), -INF], abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_are_computed_in_float32(dtype):
    logits = torch.randn(300, generator=torch.Generator().manual_seed(0)).to(dtype)
    params = SamplingParams(0.7, top_p=0.9)
    assert torch.equal(warp(logits, params), warp(logits.float(), params))


def test_extreme_biases_and_penalties_stay_finite():
    logits = torch.tensor([-5.0, 0.0, 5.0])
    banned = warp(logits, SamplingParams(1.0, logit_bias={2: -1e300}))
    assert banned.exp().tolist() == pytest.approx([0.0066929, 0.9933071, 0.0], abs=1e-6)
    forced = warp(logits, SamplingParams(1.0, logit_bias={0: 1e300}, repetition_penalty=1e300), generated={0: 1, 1: 2})
    assert support(forced)[0] == 0 and float(forced[0]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(1.0), SamplingParams(1.0, top_k=1)])
@pytest.mark.parametrize("row", [[0.0, math.nan], [math.nan, 9.0], [-INF, -INF], [INF, 0.0]])
def test_unusable_logits_are_refused(row, params):
    with pytest.raises(ModelError, match="without a usable maximum"):
        warp(torch.tensor(row), params)


def test_a_bias_outside_the_vocabulary_is_refused():
    with pytest.raises(InputError, match="logit_bias=3"):
        warp(torch.zeros(3), SamplingParams(1.0, logit_bias={0: 1.0, 3: 1.0}))
