"""Which draft tokens the target agrees with: one pure function per verification rule.

``race`` and ``exact`` verify by agreement. At each position the target draws its own token x_i with its own full chain
of settings and commits it, whatever the draft says; the draft only decides whether the logits of the next position,
computed in the same forward pass, are of any use. So the committed tokens are those of plain decoding, for every
draft. The two differ in where the target's noise comes from, that is in how often drafter and target agree.

The rejection rules keep the target's distribution, not its draws: which token comes out depends on the draft and on
whether it came in time. ``verification/rejection.py`` has the proof.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from speculation.drafts.candidates import ROOT, CandidateTree
from speculation.protocol.proposal import Proposal
from speculation.sampling.noise import RACE_STREAM
from speculation.sampling.params import Rule
from speculation.sampling.row_draws import Draw
from speculation.sampling.sampler import TokenSampler
from speculation.sampling.warpers import check_highest
from speculation.verification.rejection import ACCEPT_STREAM, RESIDUAL_STREAM, acceptance_probability, residual
from speculation.verification.step import Acceptance

#: The target's own stream, where the drafter must not share it.
OWN_STREAM = "target"


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


def accept_rejection(
    target_logits: Tensor,
    draft: CandidateTree,
    proposals: Sequence[Proposal | None],
    sampler: TokenSampler,
    *,
    max_tokens: int,
) -> Acceptance:
    """Rejection sampling over the common tokens: TLI, Timor et al. 2025, algorithm 4; with one vocabulary that of
    Leviathan et al. 2023, algorithm 1. Also SLRS (algorithm 3), whose q is psi (``verification/string_rejection.py``).

    x_i = X_i with probability min(1, p_i(X_i) / q_i(X_i)), else a draw from the normalised positive part of p_i - q_i.
    proposals: (X_i, q_i) of each candidate; None for one that comes without q and is verified by agreement: where it
    equals what is drawn, instead of X_i or without one, it saves a step. Of candidates with one parent at most one has
    a proposal.
    Other arguments as for ``accept_exact``.
    """
    if sampler.stream == RACE_STREAM:
        raise ValueError("rejection draws independently of the drafter: the stream must not be the shared one")
    return _verify(target_logits, draft, proposals, sampler, max_tokens)


def accept(
    rule: Rule,
    target_logits: Tensor,
    draft: CandidateTree,
    proposals: Sequence[Proposal | None],
    sampler: TokenSampler,
    *,
    max_tokens: int,
) -> Acceptance:
    """By the rule's function."""
    match rule:
        case Rule.RACE:
            return accept_race(target_logits, draft, sampler, max_tokens=max_tokens)
        case Rule.EXACT:
            return accept_exact(target_logits, draft, sampler, max_tokens=max_tokens)
        case Rule.REJECTION | Rule.STRING_REJECTION:
            return accept_rejection(target_logits, draft, proposals, sampler, max_tokens=max_tokens)
    raise ValueError(f"{rule} is not a rule that a session can run")


def target_stream(rule: Rule) -> str:
    """The stream of the target's own draws."""
    return RACE_STREAM if rule is Rule.RACE else OWN_STREAM


def _verify_by_agreement(
    target_logits: Tensor, draft: CandidateTree, sampler: TokenSampler, max_tokens: int
) -> Acceptance:
    return _verify(target_logits, draft, (), sampler, max_tokens)


def _verify(
    target_logits: Tensor,
    draft: CandidateTree,
    proposals: Sequence[Proposal | None],
    sampler: TokenSampler,
    max_tokens: int,
) -> Acceptance:
    """``proposals``: none, or one or None for each candidate."""
    k = len(draft)
    if target_logits.shape[0] != k + 1:
        raise ValueError(f"{k} draft tokens need {k + 1} rows of logits, not {target_logits.shape[0]}")
    drawn = {parent: each for parent, each in zip(draft.parents, proposals, strict=False) if each is not None}

    def draw(node: int) -> int:
        # x ~ p( . | committed text): the row of a node whose ancestors all agreed. After a leaf: the bonus token.
        logits, proposal = target_logits[node + 1], drawn.get(node)
        return sampler.draw(logits) if proposal is None else _decide(logits, proposal, sampler)

    return _walk(draw, draft, sampler, max_tokens)


def accept_draws(draws: Sequence[Draw], draft: CandidateTree, sampler: TokenSampler, *, max_tokens: int) -> Acceptance:
    """Verification by agreement, ``race`` or ``exact``, where every row was drawn before: the same as with its logits.

    draws: k + 1, that of row i + 1 at the place behind candidate i. Commits to ``sampler``, at most ``max_tokens``.
    Raises ModelError if logits of a row that counts are not usable.
    """

    def draw(node: int) -> int:
        token, top = draws[node + 1]
        check_highest(top, token)
        return token

    return _walk(draw, draft, sampler, max_tokens)


def _walk(draw: Callable[[int], int], draft: CandidateTree, sampler: TokenSampler, max_tokens: int) -> Acceptance:
    """Down the tree as far as it agrees with what is drawn. ``draw``: the target's token behind a node, or ROOT."""
    committed: list[int] = []
    path: list[int] = []
    node: int | None = ROOT
    while node is not None and len(committed) < max_tokens:
        x = draw(node)
        sampler.advance(x)
        committed.append(x)
        node = draft.child(node, x)
        if node is not None:
            path.append(node)
        if x in sampler.vocab.end_ids:
            break
    return Acceptance(tuple(committed), len(path), tuple(path))


def _decide(logits: Tensor, proposal: Proposal, sampler: TokenSampler) -> int:
    p = sampler.probabilities(logits)
    if sampler.happens(acceptance_probability(p, proposal), ACCEPT_STREAM):
        return proposal.token
    return sampler.draw_from(residual(p, proposal), RESIDUAL_STREAM)
