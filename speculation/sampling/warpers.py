"""Logits -> the log-probabilities that a token is drawn from.

Order, as in vLLM and Hugging Face: logit bias, repetition penalty (over prompt and generated ids), frequency and
presence penalties (over generated ids), temperature, top-k, top-p, min-p, normalisation. Sources: repetition
penalty, Keskar et al. 2019 (CTRL), section 4.1; top-p, Holtzman et al. 2020; min-p, Nguyen et al. 2024.

Everything is float32 or better, whatever the logits come in, and ties at a cut go to the lowest ids.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from speculation.errors import InputError, ModelError
from speculation.sampling.params import SamplingParams

#: How many of the likeliest tokens top-p sorts before it sorts the whole vocabulary.
GUESSES = (1024, 16384)
#: Beyond this a bias or a factor means "never" or "always", and float32 must not overflow.
_HUGE = 1e30
_HUGE_FACTOR = 1e6


def warp(
    logits: Tensor,
    params: SamplingParams,
    *,
    prompt_ids: Tensor | None = None,
    generated: Mapping[int, int] | None = None,
) -> Tensor:
    """Log-probabilities [V], float32, -inf where a token cannot be drawn, of ``logits`` [V].

    prompt_ids: int64 ids that the prompt holds, without repeats, on the logits' device. generated: id -> how often
    it was generated. At temperature 0 all probability is on the likeliest token (the lowest id of equals).
    Raises ModelError if the logits are not usable, InputError for a bias on an id that does not exist.
    """
    scores = penalise(logits, params, prompt_ids=prompt_ids, generated=generated)
    top = check_top(scores, int(scores.argmax()))
    if params.greedy:
        one_hot = torch.full_like(scores, -math.inf)
        one_hot[scores.argmax()] = 0.0
        return one_hot
    scores = temper(scores, top, params.temperature)
    if 0 < params.top_k < scores.numel():
        scores = _keep_top_k(scores, params.top_k)
    if params.top_p < 1:
        scores = _keep_top_p(scores, params.top_p, known_size=params.top_k)
    if params.min_p > 0:
        # The likeliest token's score is 0 here, so probabilities relative to it are exp(score).
        scores = scores.masked_fill(scores < math.log(params.min_p), -math.inf)
    return scores.log_softmax(-1)


def penalise(
    logits: Tensor,
    params: SamplingParams,
    *,
    prompt_ids: Tensor | None = None,
    generated: Mapping[int, int] | None = None,
) -> Tensor:
    """The steps before temperature: float32 scores [V]; the logits themselves if there is nothing to do."""
    scores = logits.float()
    counts = generated or {}
    changes = bool(params.logit_bias) or params.repetition_penalty != 1
    if not changes and not (counts and (params.presence_penalty or params.frequency_penalty)):
        return scores
    scores = scores.clone()
    device = scores.device
    if params.logit_bias:
        highest = max(params.logit_bias)
        if highest >= scores.numel():
            raise InputError("logit_bias", highest, f"is no token id; the vocabulary has {scores.numel()}")
        biased = torch.tensor(list(params.logit_bias), device=device)
        values = [max(-_HUGE, min(_HUGE, bias)) for bias in params.logit_bias.values()]
        scores[biased] += torch.tensor(values, device=device, dtype=torch.float32)
    seen = torch.tensor(list(counts), device=device, dtype=torch.int64)
    if params.repetition_penalty != 1:
        factor = max(1 / _HUGE_FACTOR, min(_HUGE_FACTOR, params.repetition_penalty))
        repeated = seen if prompt_ids is None else torch.cat((prompt_ids, seen)).unique()
        old = scores[repeated]
        scores[repeated] = torch.where(old > 0, old / factor, old * factor)
    if counts and (params.presence_penalty or params.frequency_penalty):
        times = torch.tensor(list(counts.values()), device=device, dtype=torch.float32)
        scores[seen] -= params.frequency_penalty * times + params.presence_penalty
    return scores


def check_top(scores: Tensor, best: int) -> float:
    """The highest score, which ``best`` = argmax points at. Raises ModelError unless it is a number.

    NaN counts as highest for argmax, so this finds one anywhere in the row.
    """
    top = float(scores[best])
    check_highest(top, best)
    return top


def check_highest(top: float, best: int) -> None:
    """The same for a score that is known already."""
    if not math.isfinite(top):
        raise ModelError(
            f"the model gave logits without a usable maximum ({top} at token {best})",
            remedy="load it in bfloat16 or float32, or check its weights",
        )


def temper(scores: Tensor, top: float | Tensor, temperature: float) -> Tensor:
    """Scores relative to the highest, divided by the temperature: at most 0, so nothing overflows upwards."""
    relative = scores - top
    if 1e-6 <= temperature <= 1e6:
        return relative / temperature
    return (relative.double() / temperature).float()  # float32 would make 0 / 0 or inf / inf of it


def _keep(scores: Tensor, threshold: Tensor, size: int) -> Tensor:
    """The ``size`` highest scores, of which ``threshold`` is the lowest; equals at the cut by lowest id."""
    above = scores > threshold
    equal = (scores == threshold).nonzero().squeeze(-1)
    above[equal[: size - int(above.sum())]] = True
    return scores.masked_fill(~above, -math.inf)


def _keep_top_k(scores: Tensor, k: int) -> Tensor:
    return _keep(scores, scores.topk(k).values[-1], k)


def _keep_top_p(scores: Tensor, p: float, *, known_size: int) -> Tensor:
    """The smallest set of likeliest tokens with mass >= p. ``known_size``: at most so many are left (0: unknown)."""
    log_mass = scores.logsumexp(-1).double()
    for size in (*((known_size,) if known_size else GUESSES), scores.numel()):
        values = scores.topk(min(size, scores.numel())).values
        mass = (values.double() - log_mass).exp().cumsum(-1)
        kept = int((mass < p).sum()) + 1  # those before the mass is reached, and the one that reaches it
        if kept <= values.numel():
            return _keep(scores, values[kept - 1], kept)
    return scores  # p is so near 1 that rounding hides the rest
