"""The two session state machines against each other, through a good channel.

The target writes the plain autoregressive text, and drafts are accepted.
"""

from __future__ import annotations

import pytest

from speculation.errors import InputError
from speculation.protocol.generation import FinishReason
from speculation.protocol.messages import Prompt, Resync, SessionOffer, Span, SpeculationPlan, Verdict
from speculation.protocol.session_request import SessionRequest
from speculation.sampling.params import Rule, SamplingParams
from speculation.sessions.drafter_session import DrafterSession, DraftToken, Move
from speculation.text.digest import EMPTY_DIGEST, extend_digest
from tests.support.session_drivers import SAMPLINGS, Drafter, Target, plain_text, request
from tests.support.text_models import TARGET_VOCAB


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("rule", Rule.concrete())
def test_good_channel_same_text_and_drafts_accepted(sampling: SamplingParams, rule: Rule):
    target = Target(request(sampling, max_tokens=60, rule=rule), SpeculationPlan(stop_threshold=0.0))
    drafter = Drafter(target.offer(sampling, rule))
    while not target.finished:
        while drafter.session.wants_draft():
            for message in drafter.draft():
                assert isinstance(message, Span)
                target.session.on_span(message)
        for verdict in target.step():
            assert drafter.on_verdict(verdict) == []
    expected = plain_text(sampling, 60, rule)
    assert target.session.token_ids == expected
    assert target.shown == TARGET_VOCAB.text(expected)
    stats = target.session.stats
    assert stats.stale_spans == 0
    assert stats.accepted_tokens > 0 and target.drafted_bytes > 0
    assert stats.steps + stats.accepted_tokens >= len(expected)
    assert sum(stats.accepted_per_pos) == stats.accepted_tokens


def test_race_is_drafter_invariant_across_plans():
    sampling = SamplingParams(temperature=1.0, seed=3)
    texts = set()
    for width, lookahead in ((0, 0), (1, 1), (3, 9), (16, 16)):
        target = Target(request(sampling), SpeculationPlan(width=width, lookahead=lookahead, span_tokens=2))
        drafter = Drafter(target.offer(sampling, Rule.RACE))
        while not target.finished:
            for message in drafter.draft() + drafter.draft():
                target.session.on_span(message)
            for verdict in target.step():
                drafter.on_verdict(verdict)
        texts.add(target.shown)
    assert len(texts) == 1


@pytest.mark.parametrize("stop", [b" on the", "猫".encode()[:2], b"dog"])
def test_stop_strings_cut_the_same_text_with_and_without_drafter(stop: bytes):
    sampling = SamplingParams()
    shown = []
    for width in (0, 8):
        target = Target(request(sampling, max_tokens=60, stop=(stop,)), SpeculationPlan(width=width, stop_threshold=0))
        drafter = Drafter(target.offer(sampling, Rule.RACE))
        while not target.finished:
            for message in drafter.draft() + drafter.draft() + drafter.draft() + drafter.draft():
                target.session.on_span(message)  # type: ignore[arg-type]
            for verdict in target.step():
                drafter.on_verdict(verdict)
        shown.append((target.shown, target.session.token_ids, target.session.finish_reason))
    assert shown[0] == shown[1]
    full = TARGET_VOCAB.text(plain_text(sampling, 60))
    assert shown[0][0] == full[: full.index(stop)]
    assert shown[0][2] is FinishReason.STOP


def test_max_tokens_cuts_inside_an_accepted_block():
    sampling = SamplingParams()
    for max_tokens in (1, 2, 3, 5, 8):
        target = Target(request(sampling, max_tokens=max_tokens), SpeculationPlan(stop_threshold=0))
        target.session.on_span(Span(0, 1, TARGET_VOCAB.text(plain_text(sampling, 60))))
        while not target.finished:
            target.step()
        assert target.session.token_ids == plain_text(sampling, max_tokens)
        assert target.session.finish_reason is FinishReason.LENGTH


def test_end_of_text_is_accepted_from_a_drafters_flag():
    sampling = SamplingParams()
    expected = plain_text(sampling, 200)
    assert expected[-1] in TARGET_VOCAB.end_ids
    target = Target(request(sampling, max_tokens=200), SpeculationPlan(width=250, lookahead=250))
    text = TARGET_VOCAB.text(expected)
    assert target.session.on_span(Span(0, 1, text, ends=True)).value == "used"
    while not target.finished:
        last = target.session.stats.accepted_tokens
        target.step()
    assert target.session.finish_reason is FinishReason.STOP
    assert target.session.token_ids == expected
    assert target.session.stats.accepted_tokens > last, "the end itself was a draft token"
    assert target.session.stats.steps < len(expected) / 2


def test_bad_requests_name_the_field():
    with pytest.raises(InputError, match="prompt"):
        SessionRequest((), SamplingParams(), 1, 10)
    with pytest.raises(InputError, match="context"):
        SessionRequest((1,) * 10, SamplingParams(), 1, 10)
    with pytest.raises(InputError, match="max_tokens"):
        SessionRequest((1,), SamplingParams(), 0, 10)
    with pytest.raises(InputError, match="stop"):
        Target(request(SamplingParams(), stop=(b"",)), SpeculationPlan())


def test_lost_verdict_is_asked_for_again():
    sampling = SamplingParams()
    target = Target(request(sampling), SpeculationPlan())
    drafter = Drafter(target.offer(sampling, Rule.RACE))
    lost = target.step()[0]
    assert lost.text
    (resync,) = drafter.on_verdict(target.step()[0])
    assert resync == Resync(0)
    verdict = target.session.on_resync(resync)
    assert verdict is not None
    assert drafter.on_verdict(verdict) == []
    assert drafter.session.committed_length == target.session.committed_length
    assert drafter.source.text == target.session.committed
    assert target.session.on_resync(Resync(10_000)) is None


def test_a_plan_that_was_lost_with_its_verdict_comes_with_the_next():
    """It is said once; a session that rests changes it twice, and a drafter that missed it would rest on."""
    sampling = SamplingParams()
    wide, off = SpeculationPlan(), SpeculationPlan(width=0, lookahead=0)
    target = Target(request(sampling), wide)
    drafter = Drafter(target.offer(sampling, Rule.RACE))
    assert target.session.follow(off)
    drafter.on_verdict(target.step()[0])
    assert drafter.session.plan == off
    assert target.session.follow(wide)
    lost = target.step()[0]
    assert lost.plan == wide
    (resync,) = drafter.on_verdict(target.step()[0])
    verdict = target.session.on_resync(resync)
    drafter.on_verdict(verdict)
    assert drafter.session.plan == wide


def next_number(session: DrafterSession) -> int:
    (expansion,) = session.next_expansions()
    return expansion.number


def test_agreeing_verdict_costs_the_drafter_nothing():
    offer = SessionOffer("s", Prompt(text="x"), SamplingParams(), Rule.RACE, b"", 0, SpeculationPlan(span_tokens=1))
    drafter = DrafterSession(offer)
    (first,) = drafter.on_draft([(next_number(drafter), [DraftToken(b"ab", 0.9, token=1)])])
    (second,) = drafter.on_draft([(next_number(drafter), [DraftToken(b"cd", 0.9, token=2)])])
    assert (first.base_offset, first.text, second.base_offset, second.text) == (0, b"ab", 2, b"cd")
    assert drafter.on_verdict(Verdict(0, b"abc", extend_digest(EMPTY_DIGEST, b"abc"))) == [Move((1,))]
    (third,) = drafter.on_draft([(next_number(drafter), [DraftToken(b"ef", 0.9, token=3)])])
    assert (third.base_offset, third.base_digest) == (4, extend_digest(EMPTY_DIGEST, b"abcd"))
    (correction,) = drafter.on_verdict(Verdict(3, b"dX", extend_digest(EMPTY_DIGEST, b"abcdX")))
    assert correction == Move((2,), 4, b"X")


def test_a_verdict_selects_an_alternative_that_was_shipped_ahead():
    plan = SpeculationPlan(span_tokens=1, alternatives=1, alternative_threshold=0.8, stop_threshold=0.0)
    offer = SessionOffer("s", Prompt(text="x"), SamplingParams(), Rule.RACE, b"", 0, plan)
    drafter = DrafterSession(offer)
    choices = [DraftToken(b"cat", 0.6, token=1), DraftToken(b"cow", 0.3, token=2), DraftToken(b"hen", 0.1, token=3)]
    spans = drafter.on_draft([(next_number(drafter), choices)])
    assert [(span.text, span.alternative) for span in spans] == [(b"cat", 0), (b"cow", 1)]
    first, second = drafter.next_expansions()
    assert (first.path, second.path) == ((1,), (2,))
    # Sure enough: no alternative here.
    assert len(drafter.on_draft([(first.number, [DraftToken(b" sat", 0.9, token=4), choices[0]])])) == 1
    (ahead,) = drafter.on_draft([(second.number, [DraftToken(b" mooed", 0.85, token=5)])])
    assert (ahead.text, ahead.base_offset, ahead.alternative) == (b" mooed", 3, 1)
    assert drafter.on_verdict(Verdict(0, b"cow", extend_digest(EMPTY_DIGEST, b"cow"))) == [Move((2,))]
    (expansion,) = drafter.next_expansions()
    assert expansion.path == (5,)
    (further,) = drafter.on_draft([(expansion.number, [DraftToken(b"!", 0.9, token=6)])])
    assert (further.text, further.base_offset, further.alternative) == (b"!", 9, 0)


def test_an_answer_that_crossed_a_verdict_is_used_if_it_still_fits():
    offer = SessionOffer("s", Prompt(text="x"), SamplingParams(), Rule.RACE, b"", 0, SpeculationPlan(span_tokens=1))
    drafter = DrafterSession(offer)
    drafter.on_draft([(next_number(drafter), [DraftToken(b"ab", 0.9, token=1)])])
    asked = next_number(drafter)
    assert drafter.on_verdict(Verdict(0, b"ab", extend_digest(EMPTY_DIGEST, b"ab"))) == [Move((1,))]
    (span,) = drafter.on_draft([(asked, [DraftToken(b"cd", 0.9, token=2)])])
    assert (span.base_offset, span.text) == (2, b"cd")
    asked = next_number(drafter)
    drafter.on_verdict(Verdict(2, b"xx", extend_digest(EMPTY_DIGEST, b"abxx")))
    assert drafter.on_draft([(asked, [DraftToken(b"ef", 0.9, token=3)])]) == []
