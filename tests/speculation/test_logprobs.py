"""Log-probabilities of tokens, from the rows that they were drawn from."""

from __future__ import annotations

import math

import pytest
import torch

from speculation.errors import InputError
from speculation.protocol.generation import GenerationRequest
from speculation.protocol.logprobs import MOST_LOGPROBS, TokenLogprob, TokenLogprobs
from speculation.protocol.messages import Prompt
from speculation.protocol.tokenizing import TokenPiece
from speculation.sampling.logprobs import rank_tokens


def test_the_row_of_each_token_by_the_definition():
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(2)) * 3
    found = rank_tokens(logits, [2, 0], [5, 8], 3)
    for row, token, place in zip([2, 0], [5, 8], found, strict=True):
        total = math.log(sum(math.exp(value) for value in logits[row].tolist()))
        assert place.chosen == pytest.approx(float(logits[row, token]) - total, abs=1e-5)
        order = sorted(range(9), key=lambda each: -float(logits[row, each]))[:3]
        assert [token for token, _ in place.top] == order
        for token, value in place.top:
            assert value == pytest.approx(float(logits[row, token]) - total, abs=1e-5)


def test_none_and_more_than_there_are():
    assert rank_tokens(torch.zeros(1, 4), [0], [1], 0)[0].top == ()
    assert len(rank_tokens(torch.zeros(1, 4), [0], [1], 9)[0].top) == 4


def test_how_many_may_be_asked_for():
    assert MOST_LOGPROBS == 20
    for count in (None, 0, 20):
        assert GenerationRequest(Prompt(text="x"), logprobs=count).logprobs == count
    for count in (-1, 21):
        with pytest.raises(InputError, match=rf"logprobs={count}: must lie in 0\.\.20"):
            GenerationRequest(Prompt(text="x"), logprobs=count)


def test_values():
    chosen = TokenLogprob(5, -0.5, TokenPiece(b"a"))
    assert TokenLogprobs(chosen) == TokenLogprobs(chosen, ())
