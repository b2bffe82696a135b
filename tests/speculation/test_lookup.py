"""What a target looks up in its own text, and what such guesses and a drafter's word are worth."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speculation.drafts.draft_pool import DraftPool
from speculation.drafts.lookup import OwnLookup, longest_suffix_match, match_confidence, word_at
from speculation.drafts.reliability import Reliability
from speculation.protocol.messages import Span, SpeculationPlan
from speculation.source import LOOKUP
from speculation.text.digest import DigestedText
from tests.support.session_drivers import SAMPLINGS, Target, plain_text, request
from tests.support.text_models import TARGET_VOCAB


def looked_up(prompt: bytes, text: bytes) -> bytes:
    return b"".join(word for word, _ in OwnLookup(prompt).words(DigestedText(text)))


def test_goes_on_as_the_text_did_before():
    assert looked_up(b"def add(first, second):\n    return ", b"first + second\n\ndef add(").startswith(
        b"first, second):"
    )
    assert looked_up(b"nothing here", b" repeats") == b""


@given(st.binary(max_size=60), st.binary(max_size=60), st.integers(1, 99))
def test_words_stand_one_behind_the_other_at_the_committed_end(prompt: bytes, text: bytes, capacity: int):
    pool, spans = DraftPool(capacity=capacity), DraftPool(capacity=capacity)
    for made in (pool, spans):
        made.advance(text)
    words = list(OwnLookup(prompt).words(pool.committed))
    pool.add_words(words, LOOKUP)
    at = DigestedText(text)
    for word, confidence in words:
        assert word and 0 < confidence <= 1
        spans.add_span(Span(len(at), at.digest, word, confidence=confidence, source=LOOKUP))
        at.append(word)
    assert list(pool.branches(limit=999)) == list(spans.branches(limit=999)), "as if each were a span"
    assert pool.size == spans.size == min(capacity, sum(len(word) for word, _ in words))


@pytest.mark.parametrize(("tokens", "count"), [(0, 2), (1, 4), (2, 6), (5, 12), (60, 12)])
def test_there_are_no_more_words_than_a_step_can_take(tokens: int, count: int):
    prompt, text = b" a b " + b" ".join(b"%d" % number for number in range(30)), DigestedText(b" a b")
    every = list(OwnLookup(prompt).words(text))
    assert len(every) == 12
    assert list(OwnLookup(prompt).words(text, tokens=tokens)) == every[:count]


def test_a_step_that_has_no_room_looks_nothing_up(monkeypatch: pytest.MonkeyPatch):
    target = Target(request(SAMPLINGS[0], max_tokens=60), SpeculationPlan(width=8), lookup=True)
    with monkeypatch.context() as patched:
        patched.setattr(OwnLookup, "words", None)
        assert not target.session.next_step(share=0).candidates.tokens
    while not target.finished:
        target.step()
    assert target.session.token_ids == plain_text(SAMPLINGS[0], 60)


def test_longer_matches_are_worth_more():
    worth = [match_confidence(length) for length in range(4, 129)]
    assert worth == sorted(worth) and 0 < worth[0] < 0.5 < worth[-1] < 1
    assert longest_suffix_match(b"abcdef abcdef") == (6, 6)


def test_matches_have_four_to_a_hundred_and_twenty_eight_bytes():
    long = bytes(range(200))
    assert longest_suffix_match(b"abcd-abcd") == (4, 4) and longest_suffix_match(b"abc-abc") == (0, 0)
    assert longest_suffix_match(long + b"-" + long) == (200, 128)
    for length in (5, 6, 7, 8, 127, 128):
        assert longest_suffix_match(long + b"-" + long[200 - length :]) == (200, length)
    assert longest_suffix_match(b"aaaaaa") == (5, 5), "the earlier one may overlap"
    assert longest_suffix_match(b"abcdXabcdYabcd") == (9, 4), "the latest of the earlier ones"
    assert longest_suffix_match(b"") == longest_suffix_match(b"abcd") == (0, 0)


def test_words_follow_one_another_each_surer_than_the_one_before():
    lookup = OwnLookup(b"abcd one two, three")
    words = list(lookup.words(DigestedText(b" abcd")))
    assert [word for word, _ in words] == [b" one", b" two", b",", b" three", b" abcd"]
    assert [confidence for _, confidence in words] == [n / (n + 10) for n in (4, 8, 12, 13, 19)]
    assert word_at(b"x", 1) == b"" and word_at(b"  \n  x", 0) == b"  \n  x"
    many = list(OwnLookup(b"abcd" + b" w" * 30).words(DigestedText(b"abcd")))
    assert len(many) == 12, "no more than so many words"


def test_the_first_word_is_worth_what_lookups_were_worth():
    lookup = OwnLookup(b"abcd one")
    for _ in range(3):
        lookup.reliability.guess(0, [(b"x", 1.0)])
        lookup.reliability.settle(0, b"y")
    trust = lookup.reliability.factor
    assert trust < 0.6
    confidences = [confidence for _, confidence in lookup.words(DigestedText(b" abcd"))]
    assert confidences == pytest.approx([4 / 14 * trust, 8 / 18])


def test_a_source_that_is_never_right_is_soon_believed_no_more_and_again_when_it_is():
    source = Reliability()
    for step in range(60):
        source.guess(step, [(b"x", 0.9)])
        source.settle(step, b"y")
    assert source.factor < 0.15
    for step in range(400):
        source.guess(step, [(b"x", 0.9)])
        source.settle(step, b"x")
    assert source.factor > 0.9


def test_a_text_too_short_to_say_and_a_guess_for_another_place_change_nothing():
    source = Reliability()
    source.guess(7, [(b"word", 1.0)])
    source.settle(7, b"wo")
    source.guess(7, [(b"word", 1.0)])
    source.settle(8, b"other")
    source.guess(9, [(b"", 1.0)])
    source.settle(9, b"other")
    assert source.factor == 1.0


def test_a_target_alone_with_its_lookup_writes_the_plain_text_in_fewer_steps():
    for sampling in SAMPLINGS:
        target = Target(request(sampling, max_tokens=120), SpeculationPlan(width=8), lookup=True)
        while not target.finished:
            target.step()
        assert target.session.token_ids == plain_text(sampling, 120)
    # Beyond its end the story begins anew.
    again = Target(request(SAMPLINGS[0], max_tokens=120, ignore_end=True), SpeculationPlan(width=8), lookup=True)
    while not again.finished:
        again.step()
    assert again.session.stats.steps < 0.8 * len(again.session.token_ids)


@pytest.mark.parametrize("width", [0, 64])
def test_no_step_is_wider_than_its_engine_allows(width: int):
    """Whatever the plan says, and whoever drafts."""
    whole = plain_text(SAMPLINGS[0], 60)
    everything = b"".join(TARGET_VOCAB.bytes_of(token) for token in whole)
    asked = request(SAMPLINGS[0], max_tokens=60)
    target = Target(asked, SpeculationPlan(width=width), lookup=True, prediction=everything, widest=5)
    sizes = []
    while not target.finished:
        sizes.append(len(target.session.next_step().candidates))
        target.step()
    assert max(sizes) == 5 and target.session.token_ids == whole


def test_a_source_is_held_to_all_of_its_guesses():
    """Little promised with the first choice, everything with a wrong second one: not believed for long."""
    source = Reliability()
    for step in range(40):
        source.guess(step, [(b"x", 0.0), (b"y", 1.0)])
        source.settle(step, b"z")
    assert source.factor < 0.2
    honest = Reliability()
    for step in range(40):
        honest.guess(step, [(b"x", 0.6), (b"y", 0.4)])
        honest.settle(step, b"x" if step % 5 < 3 else b"y")
    assert honest.factor == pytest.approx(1.0, abs=0.05)
