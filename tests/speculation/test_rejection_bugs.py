"""The enumerations of test_rejection.py are tested: planted bugs must fail them."""

from __future__ import annotations

import dataclasses

import pytest

from speculation.drafts import draft_branches
from speculation.drafts.draft_pool import DraftPool
from speculation.protocol.messages import SpeculationPlan
from speculation.protocol.proposal import Proposal
from speculation.sampling.params import Rule
from speculation.verification import rules
from tests.support.enumerated_run import EnumeratedRun
from tests.support.enumerated_text import EXACT, PLAN, PROPOSING, session_gap
from tests.support.tiny_pairs import CROSSING, SAME, WORDS

#: What a planted bug must move at least one text's probability by.
SEEN = 1e-4


def test_resampling_from_p_is_caught(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rules, "residual", lambda p, proposal: p)
    assert session_gap(WORDS, Rule.REJECTION, "ddUsV", length=2) > SEEN


class Permuted(EnumeratedRun):
    """Planted bug: the probabilities stand at other tokens than they belong to."""

    def sent(self, proposal: Proposal) -> Proposal:
        weights = (*proposal.weights[1:], proposal.weights[0])
        return Proposal(proposal.token, proposal.ids, weights)


class NotSampled(EnumeratedRun):
    """Planted bug: the likeliest token is drafted, and q is sent as if it had been drawn."""

    def sent(self, proposal: Proposal) -> Proposal:
        likeliest = max(zip(proposal.weights, proposal.ids, strict=True))[1]
        self.drafted[-1:] = [self.pair.target.vocab.bytes_of(likeliest)]
        return Proposal(likeliest, proposal.ids, proposal.weights)


@pytest.mark.parametrize("rule", PROPOSING)
def test_a_permuted_q_is_caught(rule: Rule):
    assert session_gap(WORDS, rule, "ddUsV", run=Permuted, length=2) > SEEN


def test_a_draft_that_was_not_drawn_from_q_is_caught():
    plan = dataclasses.replace(PLAN, lookahead=1)
    assert session_gap(WORDS, Rule.REJECTION, "dUsV", run=NotSampled, plan=plan) > SEEN


def test_shipping_by_content_is_caught(monkeypatch: pytest.MonkeyPatch):
    """Spans of two tokens: an end token comes sooner than a token that waits for another one."""
    monkeypatch.setattr(SpeculationPlan, "for_rule", lambda plan, rule: plan)
    plan = dataclasses.replace(PLAN, span_tokens=2)
    assert session_gap(WORDS, Rule.REJECTION, "dUsV", plan=plan) > SEEN


def test_choosing_the_better_of_two_drafts_is_caught(monkeypatch: pytest.MonkeyPatch):
    def likelier(trie: DraftPool, node, span, start: int) -> bool:
        [new] = span.proposals
        return node.proposal is None or new.probability > node.proposal[0].probability

    schedule = "dUrdUsV"
    assert session_gap(WORDS, Rule.REJECTION, schedule, length=2) < EXACT
    monkeypatch.setattr(DraftPool, "_place_is_open", likelier)
    assert session_gap(WORDS, Rule.REJECTION, schedule, length=2) > SEEN


def test_using_a_draft_twice_is_caught(monkeypatch: pytest.MonkeyPatch):
    """After a token without text the trie must forget what was drawn at that offset."""
    advance = DraftPool.advance
    small = SAME.drawing_from(2)
    assert session_gap(small, Rule.REJECTION, "dUss", length=3, ignore_end=True) < EXACT
    monkeypatch.setattr(DraftPool, "advance", lambda trie, text, *, zero_width=0: advance(trie, text))
    assert session_gap(small, Rule.REJECTION, "dUss", length=3, ignore_end=True) > SEEN


def test_spelling_across_a_drawn_token_is_caught(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(draft_branches, "_is_drawn", lambda node, root: False)
    assert session_gap(CROSSING, Rule.REJECTION, "ddUsV", length=4) > SEEN
