"""The rejection rules keep the target's distribution: by enumeration of everything that can happen, to 1e-12.

One position, three tokens in blocks, and whole sessions with drafts that are late, overlap, cross verdicts or are lost.
The tests are tested too: planted bugs must fail them.
"""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speculation.drafts.candidates import CandidateTree
from speculation.protocol.messages import SpeculationPlan
from speculation.protocol.proposal import Proposal, propose
from speculation.sampling.params import Rule, SamplingParams
from speculation.sampling.race import RaceNoise
from speculation.sampling.sampler import TokenSampler
from speculation.sessions.drafter_session import DrafterSession
from speculation.verification.rejection import acceptance_probability, residual
from speculation.verification.rules import accept, accept_rejection, target_stream
from tests.support.branching import BranchingSampler, Chooser, distribution, draw_proposal, largest_gap
from tests.support.enumerated_run import EnumeratedRun
from tests.support.enumerated_text import EXACT, PLAN, PROPOSING, SETTINGS, session_gap
from tests.support.tiny_pairs import CROSSING, DOUBLES, PAIRS, SAME, WORDS, TinyPair, true_sequences

# ---- one position -------------------------------------------------------------------------------------------------


@given(
    p=st.lists(st.floats(0, 1), min_size=2, max_size=8).filter(lambda p: sum(p) > 0.01),
    q=st.dictionaries(st.integers(0, 7), st.floats(1e-9, 1), min_size=1, max_size=8),
)
def test_accepted_and_residual_tokens_add_up_to_p(p: list[float], q: dict[int, float]):
    target = torch.tensor([*p, *[0.0] * (8 - len(p))], dtype=torch.float64)
    target /= target.sum()
    drawn = propose(q, 0)
    assert drawn is not None
    found = torch.zeros(8, dtype=torch.float64)
    for token, weight in zip(drawn.ids, drawn.weights, strict=True):
        proposal = Proposal(token, drawn.ids, drawn.weights)
        accepted = acceptance_probability(target, proposal)
        rest = residual(target, proposal)
        found[token] += weight / drawn.total * accepted
        found += weight / drawn.total * (1 - accepted) * rest / rest.sum()
    assert float((found - target).abs().max()) < EXACT


def test_the_draft_is_drawn_from_what_is_sent():
    """Token i for just the bits from its running sum to the next, so with probability weight / total."""
    q = {3: 0.5, 1: 0.2, 9: 0.3, 4: 1e-9}
    proposal = propose(q, 0)
    assert proposal is not None and proposal.ids == (1, 3, 9), "what rounds to nothing is not sent"
    edge = 0
    for token, weight in zip(proposal.ids, proposal.weights, strict=True):
        first = -(-(edge << 52) // proposal.total)
        edge += weight
        last = -(-(edge << 52) // proposal.total) - 1
        assert [propose(q, bits) for bits in (first, last)] == [Proposal(token, proposal.ids, proposal.weights)] * 2
    assert edge == proposal.total and last == 2**52 - 1
    assert propose({}, 5) is None and propose({1: 0.0}, 5) is None


@pytest.mark.parametrize("rule", PROPOSING)
def test_the_production_draws_are_those_of_the_keyed_noise(rule: Rule):
    """Same seed and place, same decision; and over many seeds the token's distribution is p."""
    p = WORDS.target.logits([])
    counts = torch.zeros(4, dtype=torch.float64)
    draws = 4000
    for seed in range(draws):
        params = SamplingParams(temperature=1.0, seed=seed)
        proposal = propose({0: 0.7, 1: 0.2, 3: 0.1}, (seed * 0x9E3779B97F4A7) % 2**52)
        tokens = set()
        for _ in range(2 if seed < 50 else 1):
            sampler = TokenSampler(params, WORDS.target.vocab, WORDS.target.noise, stream=target_stream(rule))
            assert proposal is not None
            rows = torch.stack([p, p])
            tokens.add(
                accept(rule, rows, CandidateTree.chain([proposal.token]), [proposal], sampler, max_tokens=1).tokens
            )
        assert len(tokens) == 1
        counts[tokens.pop()[0]] += 1
    truth = torch.softmax(p.double(), 0)
    assert float((counts / draws - truth).abs().max()) < 0.03  # four deviations of the mean of 4,000 draws


def test_misuse_is_refused():
    sampler = TokenSampler(SamplingParams(), WORDS.target.vocab, WORDS.target.noise)
    with pytest.raises(ValueError, match="independently of the drafter"):
        accept_rejection(torch.zeros(1, 4), CandidateTree(), [], sampler, max_tokens=1)
    with pytest.raises(ValueError, match="is not a rule"):
        accept(Rule.AUTO, torch.zeros(1, 4), CandidateTree(), [], sampler, max_tokens=1)


# ---- three tokens in blocks ---------------------------------------------------------------------------------------


def blocks(pair: TinyPair, rule: Rule, params: SamplingParams, chooser: Chooser, length: int) -> tuple[int, ...]:
    """Draft two tokens, verify, and again: the algorithms as published."""
    vocab = pair.target.vocab
    sampler = BranchingSampler(params, vocab, pair.target.noise, stream=target_stream(rule))
    sampler.chooser = chooser
    ids: list[int] = []
    while len(ids) < length and not (ids and ids[-1] in vocab.end_ids):
        drafted: list[Proposal] = []
        while len(drafted) < min(2, length - len(ids) - 1):
            tokens = [proposal.token for proposal in drafted]
            if tokens and not vocab.bytes_of(tokens[-1]):
                break
            q = pair.draft_distribution(rule, vocab.text([*ids, *tokens]), params)
            drafted.append(draw_proposal(q, chooser))
        tokens = [proposal.token for proposal in drafted]
        rows = torch.stack([pair.target.logits([*ids, *tokens[:i]]) for i in range(len(tokens) + 1)])
        ids += accept(rule, rows, CandidateTree.chain(tokens), drafted, sampler, max_tokens=length - len(ids)).tokens
    return tuple(ids)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("rule", PROPOSING)
def test_three_tokens_have_the_targets_joint_distribution(rule: Rule, pair: str, settings: str):
    params = SETTINGS[settings]
    small = PAIRS[pair].drawing_from(3 if pair == "words" else 2)
    found = distribution(lambda chooser: blocks(small, rule, params, chooser, 3))
    assert largest_gap(found, true_sequences(small.target, params, 3)) < EXACT
    assert (len(found) > 5) == (settings != "greedy")


# ---- whole sessions -----------------------------------------------------------------------------------------------

SCHEDULES = {
    "in time": "ddUsV",
    "one at a time": "dusV",
    "late by a step": "ddsUsV",
    "late for ever": "dsudsV",
    "verdicts late": "ddUsdUsV",
    "verdicts cross the draft": "dUasvwUs",
    "restarts": "ddUsrdus",
    "nothing arrives": "ds",
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("rule", PROPOSING)
def test_late_and_overlapped_drafts_keep_the_distribution(rule: Rule, schedule: str):
    assert session_gap(WORDS, rule, SCHEDULES[schedule]) < EXACT


@pytest.mark.parametrize("seed", range(8))
def test_no_order_of_events_moves_the_distribution(seed: int):
    events = random.Random(seed)
    schedule = "".join(events.choices("duUvVawr", k=5)) + "s" + "".join(events.choices("duUvVaw", k=3)) + "s"
    assert session_gap(WORDS, Rule.REJECTION, schedule) < EXACT


@pytest.mark.parametrize("schedule", ["in time", "late by a step", "restarts"])
@pytest.mark.parametrize("pair", [DOUBLES, SAME], ids=["doubles", "same"])
def test_tokens_without_text_keep_the_distribution(pair: TinyPair, schedule: str):
    """A pause does not move the offset, and texts go on after the end."""
    small = pair.drawing_from(2)
    assert session_gap(small, Rule.REJECTION, SCHEDULES[schedule], length=2, ignore_end=True) < EXACT


@pytest.mark.parametrize("rule", PROPOSING)
@pytest.mark.parametrize("pair", [WORDS, DOUBLES.drawing_from(2)], ids=["words", "doubles"])
def test_a_text_that_goes_on_after_an_accepted_end_token(rule: Rule, pair: TinyPair):
    """Nothing was drawn after that token, so it is run in the next step."""
    assert session_gap(pair, rule, "dUsV", length=3 if pair is WORDS else 2, ignore_end=True) < EXACT


def test_what_is_left_of_a_token_is_not_spelled_together_with_the_next_draft():
    """Else what was drawn would decide whether it is used."""
    assert session_gap(CROSSING, Rule.REJECTION, "ddUsV", length=4) < EXACT


@pytest.mark.parametrize("rule", PROPOSING)
def test_a_prediction_beside_the_drafts_keeps_the_distribution(rule: Rule):
    assert session_gap(WORDS, rule, "dsudsV", prediction=b"abba") < EXACT
    assert session_gap(WORDS, rule, "ddUsV", prediction=b"aaaa") < EXACT


@pytest.mark.parametrize("schedule", ["in time", "late by a step", "verdicts cross the draft"])
@pytest.mark.parametrize("rule", [Rule.EXACT, Rule.RACE])
def test_whatever_is_drafted_the_other_rules_keep_the_distribution(rule: Rule, schedule: str):
    """Each draw of the target is a branch here, and so is each draft; that they share noise is not needed for it."""
    assert session_gap(WORDS, rule, SCHEDULES[schedule]) < EXACT
    assert session_gap(DOUBLES.drawing_from(2), rule, SCHEDULES[schedule], length=2) < EXACT


@pytest.mark.parametrize("rule", [Rule.EXACT, Rule.REJECTION])
def test_text_alone_is_verified_by_agreement(rule: Rule):
    assert session_gap(WORDS, rule, "s", prediction=b"abba") < EXACT


def test_drafts_take_part():
    """The schedules above do use drafts, also late ones."""
    for name in ("in time", "late by a step", "verdicts late"):

        def play(chooser: Chooser, schedule: str = SCHEDULES[name]) -> int:
            run = EnumeratedRun(WORDS, Rule.REJECTION, SETTINGS["plain"], chooser, length=3, plan=PLAN)
            run.play(schedule)
            return run.target.stats.accepted_tokens

        assert sum(count * share for count, share in distribution(play).items()) > 0.15


def test_a_token_is_sent_as_soon_as_it_is_drawn():
    """Whatever the plan says of spans: one token a message, also the end, none waits for another."""
    plan = SpeculationPlan(span_tokens=4, alternatives=3, stop_threshold=0.0, lookahead=3)
    run = EnumeratedRun(WORDS, Rule.REJECTION, SETTINGS["plain"], Chooser((0, 0, 2)), length=9, plan=plan)
    assert isinstance(run.drafter, DrafterSession)
    for drawn in range(1, 4):
        run.on_d()
        assert [len(span.proposals) for span in run.up] == [1] * drawn
        assert all(span.text == b"" and not span.ends for span in run.up)


def test_noise_of_target_and_drafter_are_apart():
    """The streams of one place are different numbers."""
    noise = RaceNoise(WORDS.target.vocab)
    rows = [noise.gumbel(1, 5, 0, stream=name) for name in ("target", "accept", "residual", "draft 1.0", "draft 1.1")]
    assert len({tuple(row.tolist()) for row in rows}) == 5
