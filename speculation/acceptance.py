"""Which draft tokens the target agrees with: one pure function per verification rule.

Both rules verify by agreement. At each position the target draws its own token x_i with its own full chain of
settings and commits it, whatever the draft says; the draft only decides whether the logits of the next position,
computed in the same forward pass, are of any use. So the committed tokens are those of plain decoding, for every
draft. The rules differ in where the target's noise comes from, that is in how often drafter and target agree.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from speculation.candidates import ROOT, CandidateTree
from speculation.race import RACE_STREAM
from speculation.sampler import TokenSampler


@dataclass(frozen=True, slots=True)
class Acceptance:
    """``tokens``: what the target committed, 1 or more; the first ``accepted`` of them are draft tokens.

    ``path``: those draft tokens' numbers among the candidates.
    """

    tokens: tuple[int, ...]
    accepted: int
    path: tuple[int, ...] = ()


def accept_exact(target_logits: Tensor, draft: CandidateTree, sampler: TokenSampler, *, max_tokens: int) -> Acceptance:
    """String-level exact match: SLEM, Timor et al. 2025 (arXiv 2502.05202), the algorithm of that name.

    The drafter's noise is not the target's: the sampler's stream must be the target's own.
    target_logits: [k + 1, V], row 0 after the committed text, row i + 1 after candidate i and its ancestors.
    Commits to ``sampler``, at most ``max_tokens``. Raises ModelError if logits are not usable.
    """
    if sampler.stream == RACE_STREAM:
        raise ValueError("exact match draws independently of the drafter: the stream must not be the shared one")
    return _verify_by_agreement(target_logits, draft, sampler, max_tokens)


def accept_race(target_logits: Tensor, draft: CandidateTree, sampler: TokenSampler, *, max_tokens: int) -> Acceptance:
    """The shared race: drafter-invariant speculation, Daliri et al. 2024 (arXiv 2408.07978), over bytes.

    x_i = argmax_v( log p_i(v) + G_v ), where the drafter took argmax_v( log q_i(v) + G_v ) with the same G for equal
    bytes. Arguments as for ``accept_exact``.
    """
    if sampler.stream != RACE_STREAM:
        raise ValueError("a race needs the noise that the drafter uses too: the stream must be the shared one")
    return _verify_by_agreement(target_logits, draft, sampler, max_tokens)


def _verify_by_agreement(
    target_logits: Tensor, draft: CandidateTree, sampler: TokenSampler, max_tokens: int
) -> Acceptance:
    k = len(draft)
    if target_logits.shape[0] != k + 1:
        raise ValueError(f"{k} draft tokens need {k + 1} rows of logits, not {target_logits.shape[0]}")
    committed: list[int] = []
    path: list[int] = []
    node: int | None = ROOT
    while node is not None and len(committed) < max_tokens:
        # x ~ p( . | committed text): the row of a node whose ancestors all agreed. After a leaf: the bonus token.
        x = sampler.draw(target_logits[node + 1])
        sampler.advance(x)
        committed.append(x)
        node = draft.child(node, x)
        if node is not None:
            path.append(node)
        if x in sampler.vocab.end_ids:
            break
    return Acceptance(tuple(committed), len(path), tuple(path))
