"""Which draft tokens the target agrees with: one pure function per verification rule.

Both rules verify by agreement. At each position the target draws its own token x_i with its own full chain of
settings and commits it, whatever the draft says; the draft only decides whether the logits of the next position,
computed in the same forward pass, are of any use. So the committed tokens are those of plain decoding, for every
draft. The rules differ in where the target's noise comes from, that is in how often drafter and target agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from speculation.race import RACE_STREAM
from speculation.sampler import TokenSampler


@dataclass(frozen=True, slots=True)
class Acceptance:
    """``tokens``: what the target committed, 1 or more; the first ``accepted`` of them are draft tokens."""

    tokens: tuple[int, ...]
    accepted: int


def accept_exact(
    target_logits: Tensor, draft_tokens: Sequence[int], sampler: TokenSampler, *, max_tokens: int
) -> Acceptance:
    """String-level exact match: SLEM, Timor et al. 2025 (arXiv 2502.05202), the algorithm of that name.

    The drafter's noise is not the target's: the sampler's stream must be the target's own.
    target_logits: [k + 1, V], row i after the committed text and the first i of the k draft tokens.
    Commits to ``sampler``, at most ``max_tokens``. Raises ModelError if logits are not usable.
    """
    if sampler.stream == RACE_STREAM:
        raise ValueError("exact match draws independently of the drafter: the stream must not be the shared one")
    return _verify_by_agreement(target_logits, draft_tokens, sampler, max_tokens)


def accept_race(
    target_logits: Tensor, draft_tokens: Sequence[int], sampler: TokenSampler, *, max_tokens: int
) -> Acceptance:
    """The shared race: drafter-invariant speculation, Daliri et al. 2024 (arXiv 2408.07978), over bytes.

    x_i = argmax_v( log p_i(v) + G_v ), where the drafter took argmax_v( log q_i(v) + G_v ) with the same G for equal
    bytes. Arguments as for ``accept_exact``.
    """
    if sampler.stream != RACE_STREAM:
        raise ValueError("a race needs the noise that the drafter uses too: the stream must be the shared one")
    return _verify_by_agreement(target_logits, draft_tokens, sampler, max_tokens)


def _verify_by_agreement(
    target_logits: Tensor, draft_tokens: Sequence[int], sampler: TokenSampler, max_tokens: int
) -> Acceptance:
    k = len(draft_tokens)
    if target_logits.shape[0] != k + 1:
        raise ValueError(f"{k} draft tokens need {k + 1} rows of logits, not {target_logits.shape[0]}")
    committed: list[int] = []
    accepted = 0
    for i in range(min(k + 1, max_tokens)):
        x_i = sampler.draw(target_logits[i])  # x_i ~ p( . | committed text), row i is valid: all before agreed
        sampler.advance(x_i)
        committed.append(x_i)
        if i == k or x_i != draft_tokens[i]:  # i == k: the bonus token, beyond the draft
            break
        accepted += 1
        if x_i in sampler.vocab.end_ids:
            break
    return Acceptance(tuple(committed), accepted)
