"""Drafts that were late are looked up: where they agree with the text's end they may say how it goes on."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speculation.drafts.late_drafts import DRAFTERS, KEPT, LateDrafts
from speculation.drafts.lookup import MAX_MATCH, MIN_MATCH, longest_suffix_match
from speculation.protocol.messages import Span, SpeculationPlan
from speculation.sampling.params import Rule
from speculation.source import DRAFTER, Source, SourceKind
from speculation.text.digest import EMPTY_DIGEST, DigestedText, extend_digest
from tests.support.session_drivers import SAMPLINGS, Target, plain_text, request
from tests.support.text_models import TARGET_VOCAB

LATE = b"for i in range(len(numbers)):\n    total"


def heard(*texts: bytes, after: bytes = b"", source: Source = DRAFTER, late: LateDrafts | None = None) -> LateDrafts:
    """Spans one behind the other, the first after a text."""
    late = late or LateDrafts()
    for text in texts:
        late.hear(Span(len(after), extend_digest(EMPTY_DIGEST, after), text, source=source))
        after += text
    return late


def goes_on(late: LateDrafts, committed: bytes) -> bytes:
    return b"".join(word for word, _ in late.words(DigestedText(committed)))


def test_a_draft_that_went_another_way_goes_on_where_the_text_comes_back_to_it():
    late = heard(LATE[:9], LATE[9:20], LATE[20:])
    assert goes_on(late, b"for number in range(") == b"len(numbers)):\n    total"
    assert goes_on(late, b"for number in order(") == b"" == goes_on(LateDrafts(), b"for i in")
    confidences = [confidence for _, confidence in late.words(DigestedText(b"for number in range("))]
    assert confidences[0] == 10 / 20 and confidences == sorted(confidences)
    assert len(list(late.words(DigestedText(b" in range("), tokens=1))) == 4


def test_what_does_not_follow_is_no_continuation():
    late = heard(b"three", after=b"one six ", late=heard(b"one two "))
    assert goes_on(late, b"one ") == b"two" and goes_on(late, b"two ") == b"", "another text of as many bytes"


def test_first_choices_are_kept_for_a_while_and_of_each_drafter_its_own():
    late = LateDrafts()
    late.hear(Span(0, EMPTY_DIGEST, b"abcd one", alternative=1))
    late.hear(Span(0, EMPTY_DIGEST, b"", rests=True))
    assert goes_on(late, b"abcd") == b""
    first, second = Source(SourceKind.DRAFTER), Source(SourceKind.DRAFTER)
    heard(b"abcd ", source=first, late=late)
    heard(b"wxyz ", source=second, late=late)
    heard(b"one", after=b"abcd ", source=first, late=late)
    heard(b"two", after=b"wxyz ", source=second, late=late)
    assert goes_on(late, b"abcd ") == b"one" and goes_on(late, b"wxyz ") == b"two"
    heard(*[b"%04d " % number for number in range(KEPT)], source=second, late=late)
    assert goes_on(late, b"wxyz ") == b"" and goes_on(late, b"2040 ").startswith(b"2041 2042")
    for _ in range(DRAFTERS - 1):
        heard(b"some text", source=Source(SourceKind.DRAFTER), late=late)
    assert goes_on(late, b"abcd ") == b"" and goes_on(late, b"2040 ") != b"", "who sent last is kept"


def test_who_is_never_right_costs_no_other_its_trust():
    honest, liar = Source(SourceKind.DRAFTER), Source(SourceKind.DRAFTER)
    late, text = heard(b"the river goes on", source=honest), b"by the river"
    for number in range(40):
        heard(text, b" %04d" % number, source=liar, late=late)
        if goes_on(late, text) == b" goes on":
            return
        late.settle(len(text), b" goes on")
    raise AssertionError("the longer match is believed for ever")


@given(st.text("ab", max_size=60).map(str.encode), st.text("ab", max_size=20).map(str.encode))
def test_the_longest_suffix_of_another_text_is_found(text: bytes, tail: bytes):
    expected = 0, 0
    for length in range(min(MAX_MATCH, len(tail)), MIN_MATCH - 1, -1):
        if (at := text.rfind(tail[-length:], 0, max(0, len(text) - 1))) >= 0:
            expected = at + length, length
            break
    assert longest_suffix_match(text, tail) == expected


def written(rule: Rule, *, late: bool) -> Target:
    """A text, of which a drafter guessed all but the first bytes."""
    req = dataclasses.replace(request(SAMPLINGS[0], max_tokens=60), rule=rule)
    target = Target(req, SpeculationPlan(width=8, verify_threshold=0.0), lookup=True)
    if late:
        text = b"\x01\x02" + TARGET_VOCAB.text(plain_text(SAMPLINGS[0], 60))
        target.session.on_span(Span(0, EMPTY_DIGEST, text[:250]))
    while not target.finished:
        target.step()
    assert target.session.token_ids == plain_text(SAMPLINGS[0], 60)
    return target


def test_a_text_is_written_in_fewer_steps():
    steps = [written(Rule.RACE, late=late).session.stats.steps for late in (False, True)]
    assert steps[1] < 0.7 * steps[0], steps


def test_a_drafters_word_of_now_is_not_raised_by_what_it_said_before():
    """What it is not sure of is not verified, however much of the text it had right."""
    target = Target(request(SAMPLINGS[0], max_tokens=60), SpeculationPlan(width=8, verify_threshold=0.2), lookup=True)
    target.step()
    text = target.session.committed
    target.session.on_span(Span(0, EMPTY_DIGEST, text, confidence=0.9))
    target.session.on_span(Span(len(text), extend_digest(EMPTY_DIGEST, text), b" sleep", confidence=0.05))
    assert not target.session.next_step().candidates.tokens


@pytest.mark.parametrize("rule", [rule for rule in Rule.concrete() if rule.proposes])
def test_where_drafters_draw_nothing_that_they_sent_is_looked_up(rule: Rule, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(LateDrafts, "hear", None)
    req = dataclasses.replace(request(SAMPLINGS[1], max_tokens=20), rule=rule)
    target = Target(req, SpeculationPlan(width=8), lookup=True)
    target.session.on_span(Span(0, EMPTY_DIGEST, b"some text"))
    while not target.finished:
        target.step()


def test_a_drafter_that_is_never_right_is_soon_believed_no_more():
    late, text = heard(b"abcd xx "), DigestedText(b"abcd")
    [first, *_] = late.words(text)
    for _ in range(40):
        list(late.words(text))
        late.settle(len(text), b" yy")
    assert next(late.words(text))[1] < 0.5 * first[1]
