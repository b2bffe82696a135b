"""Text beside drawn tokens under the rejection rules: alternatives and lookups leave the distribution alone, and help.

By enumeration, as in test_rejection.py; and the tests are tested by planted bugs.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from speculation.drafts.candidates import ROOT
from speculation.protocol.messages import Resync, Span, SpeculationPlan
from speculation.sampling.params import Rule
from speculation.sessions.drafter_session import Move
from tests.support.branching import Chooser, distribution
from tests.support.enumerated_run import EnumeratedRun
from tests.support.enumerated_text import EXACT, PROPOSING, SETTINGS, session_gap
from tests.support.tiny_pairs import CROSSING, DOUBLES, WORDS, MarkovModel, TinyPair, vocabulary

#: What a planted bug must move at least one text's probability by.
SEEN = 1e-4
#: Texts seldom end, so what is not drawn is text too.
LONG = TinyPair(
    MarkovModel(vocabulary("a", "b", "ab", None, end=3), 1, end_bias=-4.0),
    MarkovModel(vocabulary("ba", None, "b", "a", end=1), 2, end_bias=-4.0),
    top_k=2,
)
#: Beside each drawn token one more, and both are drafted on from.
BRANCHES = SpeculationPlan(width=4, lookahead=2, stop_threshold=0.0, alternatives=1, alternative_threshold=1.0)
NARROW = SpeculationPlan(width=2, lookahead=2, stop_threshold=0.3, alternatives=2, verify_threshold=0.3)
SCHEDULES = {"in time": "dUsV", "two deep": "ddUsV", "late by a step": "ddsUsV", "verdicts cross": "dUasvwUs"}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("plan", [BRANCHES, NARROW], ids=["branches", "narrow"])
def test_alternatives_keep_the_distribution(schedule: str, plan: SpeculationPlan):
    assert session_gap(LONG, Rule.REJECTION, SCHEDULES[schedule], plan=plan) < EXACT


@pytest.mark.parametrize("schedule", ["dUsV", "dsUsV"])
def test_alternatives_in_longer_texts_keep_the_distribution(schedule: str):
    assert session_gap(LONG, Rule.REJECTION, schedule, plan=BRANCHES, length=4) < EXACT


@pytest.mark.parametrize("schedule", ["dUsV", "dsUsV"])
@pytest.mark.parametrize("pair", [WORDS, DOUBLES.drawing_from(3), CROSSING], ids=["words", "doubles", "crossing"])
def test_alternatives_to_the_end_to_tokens_without_text_or_across_each_other(pair: TinyPair, schedule: str):
    assert session_gap(pair, Rule.REJECTION, schedule, plan=BRANCHES, ignore_end=pair is not WORDS) < EXACT


@pytest.mark.parametrize("schedule", ["dUsV", "ddsUsV", "dUsrdUs"])
@pytest.mark.parametrize("rule", PROPOSING)
def test_lookups_beside_the_drafts_keep_the_distribution(rule: Rule, schedule: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("speculation.drafts.lookup.MIN_MATCH", 1)
    assert session_gap(WORDS.drawing_from(2), rule, schedule, lookup=True, length=4) < EXACT


def written(plan: SpeculationPlan, events: str, *, lookup: bool = False) -> float:
    """Tokens of a long text after some events, as an expectation."""

    def once(chooser: Chooser) -> int:
        run = EnumeratedRun(LONG, Rule.REJECTION, SETTINGS["plain"], chooser, length=20, plan=plan, lookup=lookup)
        for event in events:
            if run.target.finish_reason is None:
                getattr(run, f"on_{event}")()
        return len(run.target.token_ids)

    return sum(count * share for count, share in distribution(once).items())


@pytest.mark.parametrize("events, gain", [("ddUs", 0.01), ("ddsUs", 0.1)])
def test_alternatives_save_steps(events: str, gain: float):
    """What is drawn instead of a draft that was rejected, or came too late, is met by another branch."""
    chain = SpeculationPlan(width=4, lookahead=2, stop_threshold=0.0)
    assert written(BRANCHES, events) > written(chain, events) + gain


def test_lookups_save_steps(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("speculation.drafts.lookup.MIN_MATCH", 1)
    assert written(BRANCHES, "sss", lookup=True) > written(BRANCHES, "sss") + 0.05


# ---- planted bugs -------------------------------------------------------------------------------------------------


class Weighing(EnumeratedRun):
    """Planted bug: the chance of the token that was drawn decides whether it is verified."""

    def on_u(self) -> None:
        message = self.up[0] if self.up else None
        if isinstance(message, Span) and any(drawn.probability <= 0.5 for drawn in message.proposals):
            self.up.popleft()
        else:
            super().on_u()


def test_withholding_what_was_drawn_because_it_is_unlikely_is_caught():
    assert session_gap(WORDS, Rule.REJECTION, "dUsV", plan=BRANCHES, length=2) < EXACT
    assert session_gap(WORDS, Rule.REJECTION, "dUsV", plan=BRANCHES, length=2, run=Weighing) > SEEN


class OnlyText(EnumeratedRun):
    """Planted bug: an end token that was drawn on a branch is not sent, while another token would be."""

    def carry_out(self, instructions: Iterable[Move | Span | Resync]) -> None:
        vocab = self.pair.target.vocab
        super().carry_out(
            message
            for message in instructions
            if not isinstance(message, Span)
            or not message.alternative
            or all(vocab.bytes_of(drawn.token) for drawn in message.proposals)
        )


def test_passing_over_the_end_beside_alternatives_is_caught():
    assert session_gap(WORDS, Rule.REJECTION, "ddsUs", plan=BRANCHES) < EXACT
    assert session_gap(WORDS, Rule.REJECTION, "ddsUs", plan=BRANCHES, run=OnlyText) > SEEN


def test_a_drawn_token_is_taken_before_any_text_beside_it():
    """So nothing that depends on its bytes takes its room."""

    def once(chooser: Chooser) -> bool:
        plan = SpeculationPlan(width=1, lookahead=1, stop_threshold=0.0, alternatives=3)
        run = EnumeratedRun(WORDS, Rule.REJECTION, SETTINGS["plain"], chooser, length=2, plan=plan)
        run.on_d()
        run.on_U()
        step = run.target.next_step()
        return step.candidates.parents == (ROOT,) and step.proposals[0] is not None

    assert distribution(once) == {True: pytest.approx(1)}
