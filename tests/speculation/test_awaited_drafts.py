"""Steps that are held back for a draft: what ends the waiting, and that it leaves the rejection rules' texts alone."""

from __future__ import annotations

import dataclasses

import pytest

from speculation.protocol.messages import Span, SpeculationPlan
from speculation.sampling.params import Rule, SamplingParams
from speculation.sessions.drafter_session import DraftToken
from speculation.text.digest import EMPTY_DIGEST
from tests.support.branching import Chooser, distribution
from tests.support.enumerated_run import EnumeratedRun
from tests.support.enumerated_text import EXACT, PROPOSING, SETTINGS, session_gap
from tests.support.session_drivers import Target, request
from tests.support.tiny_pairs import WORDS


class Unsure(EnumeratedRun):
    """The drafter is sure of some tokens only, and rests after the others."""

    def draw(self, text: bytes) -> DraftToken:
        drawn = super().draw(text)
        return dataclasses.replace(drawn, confidence=0.9 if drawn.text in (b"a", b"ab") else 0.2)


#: Steps are held back for two tokens, or for one after which the drafter rests.
WAITING = SpeculationPlan(width=3, lookahead=3, stop_threshold=0.5, span_tokens=2, patience=1.0)


@pytest.mark.parametrize("schedule", ["dUpV", "dUpdUV", "dUpdUsV", "dUprddUpsV"])
@pytest.mark.parametrize("rule", PROPOSING)
def test_steps_that_wait_for_company_keep_the_distribution(rule: Rule, schedule: str):
    pair = WORDS.drawing_from(2) if "r" in schedule else WORDS
    assert session_gap(pair, rule, schedule, plan=WAITING) < EXACT
    assert session_gap(pair, rule, schedule, plan=WAITING, run=Unsure) < EXACT


def steps_and_drafts(run: type[EnumeratedRun], plan: SpeculationPlan) -> tuple[float, float]:
    """Of a text of four tokens: steps, and draft tokens per step, as expectations."""

    def once(chooser: Chooser) -> tuple[int, int]:
        played = run(WORDS, Rule.REJECTION, SETTINGS["plain"], chooser, length=4, plan=plan)
        played.play("dUpV")
        return played.target.stats.steps, played.target.stats.draft_tokens

    found = distribution(once).items()
    steps = sum(share * counts[0] for counts, share in found)
    return steps, sum(share * counts[1] for counts, share in found) / steps


def test_a_step_waits_until_a_span_is_full_or_the_drafter_rests():
    steps_alone, alone = steps_and_drafts(EnumeratedRun, dataclasses.replace(WAITING, span_tokens=1))
    steps_together, together = steps_and_drafts(EnumeratedRun, WAITING)
    steps_unsure, unsure = steps_and_drafts(Unsure, WAITING)
    assert alone <= 1 < together and unsure < together
    assert steps_together < steps_unsure < steps_alone


@pytest.mark.parametrize("rule", [Rule.RACE, Rule.REJECTION])
def test_text_or_the_word_that_none_comes_ends_the_waiting(rule: Rule):
    target = Target(request(SamplingParams(temperature=1.0, seed=1), max_tokens=2, rule=rule), WAITING)
    session = target.session
    for span, ready in (
        (Span(0, EMPTY_DIGEST ^ 1, b"stale", rests=True), False),
        (Span(0, EMPTY_DIGEST, b"", rests=True), True),
    ):
        session.on_span(span)
        assert session.ready is ready
    target.step()
    assert session.ready, "the last token needs no draft"


@pytest.mark.parametrize("rule", [Rule.RACE, Rule.REJECTION])
def test_text_that_was_not_drawn_is_not_awaited_further(rule: Rule):
    target = Target(request(SamplingParams(temperature=1.0, seed=1), rule=rule), WAITING)
    assert not target.session.ready
    target.session.on_span(Span(0, EMPTY_DIGEST, b"any"))
    assert target.session.ready
    target.session.on_span(Span(0, EMPTY_DIGEST, b"more", rests=True))
    target.step()
    assert not target.session.ready, "the word that nothing comes was good until the verdict"
