"""The sampler's place in the text, and that a draw depends on nothing but what it should."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speculation.errors import ModelError
from speculation.sampling.noise import place_uniform
from speculation.sampling.params import SamplingParams
from speculation.sampling.race import RaceNoise
from speculation.sampling.sampler import TokenSampler
from speculation.sampling.warpers import warp
from speculation.text.byte_vocab import ByteVocab
from tests.support.distributions import ALPHA, detectable_tv, g_test

# a, b, ab, another a, no bytes, pause, end, padding
VOCAB = ByteVocab((b"a", b"b", b"ab", b"a", b"", None, None, None), special={5: "<pause>", 6: "<end>"}, end_ids=(6,))
PADDING = 7
NOISE = RaceNoise(VOCAB)
TOKENS = st.integers(0, 6)
PARAMS = [
    SamplingParams(),
    SamplingParams(temperature=1.0, seed=3),
    SamplingParams(
        1.5, top_k=4, top_p=0.9, repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=0.3, seed=4
    ),
    SamplingParams(repetition_penalty=1.5, frequency_penalty=1.0, logit_bias={1: 0.7}),
]


def sampler(params: SamplingParams = PARAMS[1], **kwargs) -> TokenSampler:
    return TokenSampler(params, VOCAB, NOISE, **kwargs)


def logits(seed: int) -> torch.Tensor:
    return torch.randn(8, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None)
@given(st.lists(TOKENS, max_size=12), st.integers(0, 12), st.lists(TOKENS, max_size=5), st.sampled_from(PARAMS))
def test_the_place_is_that_of_the_tokens(first, keep, then, params):
    """Also after a truncation: then the sampler is as good as new with the tokens that are left."""
    used = sampler(params, prompt_ids=[0, 2])
    for token in first:
        used.advance(token)
        used.draw(logits(token))
    used.truncate(keep)
    for token in then:
        used.advance(token)
    tokens = (*first[:keep], *then)
    assert used.tokens == tokens
    assert used.offset == len(VOCAB.text(tokens))
    assert used.zero_width == next((i for i, t in enumerate(reversed(tokens)) if VOCAB.bytes_of(t)), len(tokens))
    fresh = sampler(params, prompt_ids=[0, 2])
    for token in tokens:
        fresh.advance(token)
    for seed in range(4):
        assert torch.equal(used.log_probs(logits(seed)), fresh.log_probs(logits(seed)))
        assert used.draw(logits(seed)) == fresh.draw(logits(seed))


@settings(deadline=None)
@given(st.integers(0, 2**64 - 1), st.lists(TOKENS, max_size=6), st.integers(0, 99), st.sampled_from(["race", "target"]))
def test_a_draw_is_the_race_at_its_place(seed, tokens, row, stream):
    drawing = sampler(SamplingParams(0.8, seed=seed), stream=stream)
    for token in tokens:
        drawing.advance(token)
    log_p = drawing.log_probs(logits(row))
    noise = NOISE.gumbel(seed, drawing.offset, drawing.zero_width, stream=stream)
    assert drawing.draw(logits(row)) == int((log_p + noise).argmax())
    noise = NOISE.gumbel(seed, drawing.offset, 3, stream=stream)
    assert drawing.draw(logits(row), zero_width=3) == int((log_p + noise).argmax())


@pytest.mark.parametrize("params", PARAMS)
def test_padding_is_never_drawn(params):
    row = logits(0)
    row[PADDING] = 50.0
    drawing = sampler(params)
    assert float(drawing.log_probs(row)[PADDING]) == -torch.inf
    for token in [0, 1, 2, 5] * 5:
        assert drawing.draw(row) != PADDING
        drawing.advance(token)
    assert float(row[PADDING]) == 50.0, "the model's logits are left alone"


def test_greedy_takes_the_lowest_id_of_equals():
    row = torch.tensor([0.0, 1.0, 0.5, 1.0, 1.0, 0.0, 1.0, 9.0])
    assert sampler(SamplingParams()).draw(row) == 1
    assert sampler(SamplingParams(logit_bias={1: -1.0})).draw(row) == 3
    halves = torch.tensor([1.0, 1.001, 1.0, 0, 0, 0, 0, 0])
    assert sampler(SamplingParams()).draw(halves.bfloat16()) == 0, "a tie in the model's own dtype is a tie"


def test_greedy_takes_the_lowest_of_equals_in_long_rows():
    """Long rows are searched in vector lanes and, on accelerators, in blocks."""
    vocab = ByteVocab(tuple(i.to_bytes(3, "little") for i in range(70_000)))
    drawing = TokenSampler(SamplingParams(), vocab, RaceNoise(vocab))
    for first in (0, 1, 7, 8, 4095, 65_537, 69_998):
        row = torch.zeros(70_000)
        row[[first, min(first + 9, 69_999), 69_999]] = 1.0
        assert drawing.draw(row) == first


def test_draws_follow_the_warped_distribution():
    params = SamplingParams(0.9, top_k=5, frequency_penalty=0.5, logit_bias={1: 0.5}, seed=11)
    drawing = sampler(params)
    drawing.advance(0)
    row = logits(1)
    p = drawing.log_probs(row).double().exp()
    draws = 5000
    assert detectable_tv(draws, 5) < 0.06
    outcomes = [drawing.draw(row, zero_width=zero_width) for zero_width in range(draws)]
    assert g_test([outcomes.count(v) for v in range(8)], (p / p.sum()).tolist()) > ALPHA


@pytest.mark.parametrize("repetition", [0.5, 1.5, 2.0])
def test_penalties_count_what_they_should(repetition):
    """Repetition sees prompt and generated ids, the others only what was generated; truncation takes it back."""
    params = SamplingParams(1.0, repetition_penalty=repetition, presence_penalty=0.5, frequency_penalty=0.25)
    row = logits(2)
    drawing = sampler(params, prompt_ids=[1, 1, 2])
    before = drawing.log_probs(row)
    clean = row.clone()
    clean[PADDING] = -torch.inf
    assert torch.equal(before, warp(clean, params, prompt_ids=torch.tensor([1, 2])))
    for token in (0, 0, 5):
        drawing.advance(token)
    expected = warp(clean, params, prompt_ids=torch.tensor([1, 2]), generated={0: 2, 5: 1})
    assert torch.equal(drawing.log_probs(row), expected)
    drawing.truncate(0)
    assert torch.equal(drawing.log_probs(row), before)


def test_the_race_is_the_same_where_every_token_is_possible():
    vocab = ByteVocab((b"a", b"b", b"ab", b"c", b"d"))
    noise = RaceNoise(vocab)
    drawing = TokenSampler(SamplingParams(1.0, seed=5), vocab, noise)
    row = torch.tensor([0.5, 0.0, 1.0, -1.0, 0.25])
    log_p = drawing.log_probs(row)
    assert log_p.isfinite().all()
    drawn = [drawing.draw(row, zero_width=place) for place in range(40)]
    assert drawn == [int((log_p + noise.gumbel(5, 0, place)).argmax()) for place in range(40)]
    assert len(set(drawn)) == 5
    order = (log_p + noise.gumbel(5, 0, 0)).argsort(descending=True).tolist()
    assert [drawing.draw_ranked(row, count) for count in range(1, 9)] == [order[:count] for count in range(1, 9)]


@pytest.mark.parametrize("params", PARAMS)
@pytest.mark.parametrize("zero_width", [None, 3])
def test_the_further_choices_are_what_would_be_drawn_without_those_before(params, zero_width):
    drawing = sampler(params)
    row = logits(3)
    possible = drawing.log_probs(row).isfinite().sum() if not params.greedy else 7  # all but the padding
    ranked = drawing.draw_ranked(row, 20, zero_width=zero_width)
    assert len(ranked) == possible
    without = row.clone()
    if not (params.top_k or params.top_p < 1):
        for token in ranked:
            assert drawing.draw(without, zero_width=zero_width) == token
            without[token] = -torch.inf
    for count in range(1, 8):
        assert drawing.draw_ranked(row, count, zero_width=zero_width) == ranked[:count]


def test_the_further_choices_of_a_race_are_ranked_by_it():
    drawing = sampler(SamplingParams(1.0, top_k=4, seed=9))
    row = logits(4)
    for place in range(20):
        race = drawing.log_probs(row) + NOISE.gumbel(9, 0, place)
        order = race.argsort(descending=True)[:4].tolist()
        assert drawing.draw_ranked(row, 20, zero_width=place) == order


def test_decisions_and_draws_by_weight_are_of_the_place():
    """Kept for one place and stream; over many places they come as often as they should."""
    drawing = sampler(SamplingParams(1.0, seed=8))
    weights = torch.tensor([0.0, 3.0, 0.0, 1.0, 0.0, 4.0, 0.0, 0.0])
    draws = 1500
    happened, drawn = 0, []
    for _ in range(draws):
        assert drawing.happens(0.3, "x") == (place_uniform(8, drawing.offset, drawing.zero_width, "x") < 0.3)
        happened += drawing.happens(0.3, "x")
        drawn.append(drawing.draw_from(weights, "y"))
        race = weights.log() + NOISE.gumbel(8, drawing.offset, drawing.zero_width, stream="y")
        assert drawn[-1] == int(race.argmax())
        drawing.advance(0)
    assert g_test([draws - happened, happened], [0.7, 0.3]) > ALPHA
    assert g_test([drawn.count(token) for token in (1, 3, 5)], [3 / 8, 1 / 8, 4 / 8]) > ALPHA


def test_probabilities_add_up_to_one():
    drawing = sampler(PARAMS[2])
    p = drawing.probabilities(logits(5))
    assert p.dtype == torch.float64 and float(p.sum()) == pytest.approx(1.0, abs=1e-15)
    assert p.tolist() == pytest.approx(drawing.log_probs(logits(5)).exp().tolist(), abs=1e-6)


@pytest.mark.parametrize("params", PARAMS[:2])
def test_a_processor_decides_what_is_drawn_from(params):
    """Once for each draw, with the text so far; rows cannot be drawn ahead of it."""
    seen: list[tuple[int, ...]] = []

    def only_one_token(generated, row):
        seen.append(tuple(generated))
        return torch.full_like(row, -torch.inf).index_fill(0, torch.tensor(len(generated) % 3), 0.0)

    drawing = sampler(params, processor=only_one_token)
    assert drawing.draws_one_by_one and not sampler(params).draws_one_by_one
    for place in range(7):
        token = drawing.draw(logits(place))
        assert token == place % 3
        drawing.advance(token)
    assert seen == [drawing.tokens[:length] for length in range(7)]


@pytest.mark.parametrize("params", PARAMS)
def test_bad_logits_are_refused(params):
    with pytest.raises(ModelError, match="shape"):
        sampler(params).draw(torch.zeros(7))
    with pytest.raises(ModelError, match="maximum"):
        sampler(params).draw(torch.full((8,), torch.nan))
    only_padding = torch.full((8,), -torch.inf)
    only_padding[PADDING] = 0.0
    with pytest.raises(ModelError, match="maximum"):
        sampler(params).draw(only_padding)
