"""Logits -> the log-probabilities that a token is drawn from.

Order, as in vLLM and Hugging Face: logit bias, repetition penalty (over prompt and generated ids), frequency and
presence penalties (over generated ids), temperature, top-k, top-p, min-p, normalisation. Sources: repetition
penalty, Keskar et al. 2019 (CTRL), section 4.1; top-p, Holtzman et al. 2020; min-p, Nguyen et al. 2024.

Everything is float32 or better, whatever the logits come in, and ties at a cut go to the lowest ids.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

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
    best = int(scores.argmax())
    top = check_top(scores, best)
    if params.greedy:
        one_hot = torch.full_like(scores, -math.inf)
        one_hot[best] = 0.0
        return one_hot
    return warp_rows(scores[None], top, params)[0].log_softmax(-1)


def warp_rows(scores: Tensor, tops: float | Tensor, params: SamplingParams) -> Tensor:
    """Temperature and cuts: of penalised scores [n, V] what the logarithm of a probability is but for a constant.

    ``tops``: the highest of each row, [n, 1], or of the only one. The highest is 0; what cannot be drawn is -inf. A row
    is summed in float64 only: its place among others can change a cut of top-p where the mass is ``top_p`` to the last
    places, and nothing else.
    """
    return _warped(scores, tops, params, _keep_top_p)


def guess_rows(scores: Tensor, tops: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """The same without a look at any value, which would wait for a device that works by itself; and of which rows it
    is certain, [n] bool. It is not where top-p leaves more tokens than were sorted at first.
    """
    sure = torch.ones(scores.shape[0], dtype=torch.bool, device=scores.device)

    def cut(scores: Tensor, p: float, known_size: int) -> Tensor:
        nonlocal sure
        total = scores.double().logsumexp(-1, keepdim=True)
        cut, sure = _keep_top_p_of(scores, total, p, size=known_size or GUESSES[0])
        return cut

    return _warped(scores, tops, params, cut), sure


def _warped(
    scores: Tensor, tops: float | Tensor, params: SamplingParams, keep_top_p: Callable[[Tensor, float, int], Tensor]
) -> Tensor:
    """See ``warp_rows``. ``keep_top_p``: of scores, a mass, and how many are left at most (0: unknown)."""
    scores = temper(scores, tops, params.temperature)
    if 0 < params.top_k < scores.shape[-1]:
        scores = _keep_top_k(scores, params.top_k)
    if params.top_p < 1:
        scores = keep_top_p(scores, params.top_p, params.top_k)
    if params.min_p > 0:
        # The likeliest token's score is 0 here, so probabilities relative to it are exp(score).
        scores = scores.masked_fill(scores < math.log(params.min_p), -math.inf)
    return scores


def penalise(
    logits: Tensor,
    params: SamplingParams,
    *,
    prompt_ids: Tensor | None = None,
    generated: Mapping[int, int] | None = None,
) -> Tensor:
    """The steps before temperature: float32 scores [V]; the logits themselves if there is nothing to do."""
    counts = None
    if generated and counts_matter(params):
        counts = torch.zeros(logits.shape, device=logits.device)
        ids = torch.tensor(list(generated), device=logits.device)
        counts[ids] = torch.tensor(list(generated.values()), device=logits.device, dtype=torch.float32)
    scores = logits.float()[None]
    return penalise_rows(scores, params, prompt_ids=prompt_ids, counts=None if counts is None else counts[None])[0]


def counts_matter(params: SamplingParams) -> bool:
    """Whether scores depend on what was generated."""
    return params.repetition_penalty != 1 or bool(params.presence_penalty or params.frequency_penalty)


def penalise_rows(
    scores: Tensor, params: SamplingParams, *, prompt_ids: Tensor | None = None, counts: Tensor | None = None
) -> Tensor:
    """The same of scores [n, V] float32. ``counts``: [n, V] float32, how often each token was generated; None: never.

    Raises InputError for a bias on an id that does not exist.
    """
    if params.logit_bias:
        highest = max(params.logit_bias)
        if highest >= scores.shape[-1]:
            raise InputError("logit_bias", highest, f"is no token id; the vocabulary has {scores.shape[-1]}")
        biased = torch.tensor(list(params.logit_bias)).to(scores.device, non_blocking=True)
        values = [max(-_HUGE, min(_HUGE, bias)) for bias in params.logit_bias.values()]
        scores = scores.clone()
        scores[:, biased] += torch.tensor(values, dtype=torch.float32).to(scores.device, non_blocking=True)
    if params.repetition_penalty != 1 and (counts is not None or prompt_ids is not None):
        factor = max(1 / _HUGE_FACTOR, min(_HUGE_FACTOR, params.repetition_penalty))
        repeated = torch.zeros_like(scores, dtype=torch.bool) if counts is None else counts > 0
        if prompt_ids is not None:
            repeated.index_fill_(1, prompt_ids, True)  # an assignment would wait for the device
        scores = torch.where(repeated, torch.where(scores > 0, scores / factor, scores * factor), scores)
    if counts is not None and (params.presence_penalty or params.frequency_penalty):
        scores = scores - (params.frequency_penalty * counts + params.presence_penalty * (counts > 0))
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


def _keep(scores: Tensor, threshold: Tensor, size: int | Tensor) -> Tensor:
    """Of each row the ``size`` highest scores, of which ``threshold`` [n, 1] is the lowest; equals by lowest id."""
    above, equal = scores > threshold, scores == threshold
    room = size - above.sum(-1, keepdim=True)
    return scores.masked_fill(~(above | (equal & (equal.cumsum(-1) <= room))), -math.inf)


def _keep_top_k(scores: Tensor, k: int) -> Tensor:
    return _keep(scores, scores.topk(k).values[:, -1:], k)


def _keep_top_p(scores: Tensor, p: float, known_size: int) -> Tensor:
    """The smallest set of likeliest tokens with mass >= p. ``known_size``: at most so many are left (0: unknown)."""
    total = scores.double().logsumexp(-1, keepdim=True)
    for size in (known_size,) if known_size else GUESSES:
        cut, enough = _keep_top_p_of(scores, total, p, size=size)
        if bool(enough.all()):
            return cut
    return _keep_top_p_of(scores, total, p, size=scores.shape[-1])[0]


def _keep_top_p_of(scores: Tensor, total: Tensor, p: float, *, size: int) -> tuple[Tensor, Tensor]:
    """The same, if those are among the ``size`` likeliest; and of which rows they are, [n] bool. ``total``: logarithm
    of the mass of each row, [n, 1] float64. Of a row where p is so near 1 that rounding hides the rest, all are kept.
    """
    values = scores.topk(min(size, scores.shape[-1])).values
    mass = (values.double() - total).exp().cumsum(-1)
    kept = (mass < p).sum(-1, keepdim=True) + 1  # those before the mass is reached, and the one that reaches it
    enough = kept <= values.shape[-1]
    kept = kept.clamp(max=values.shape[-1])
    return _keep(scores, values.gather(-1, kept - 1), kept), enough[:, 0]
