"""What the word of a source of drafts is worth: the arithmetic, and each source by its own word only."""

from __future__ import annotations

import pytest

from speculation.drafts.reliability import Reliabilities, Reliability
from speculation.source import LOOKUP, PREDICTION, Source, SourceKind


def after(*steps: tuple[list[tuple[bytes, float]], bytes]) -> float:
    """The factor after steps of (guesses, what was committed)."""
    source = Reliability()
    for offset, (guesses, text) in enumerate(steps):
        source.guess(offset, guesses)
        source.settle(offset, text)
    return source.factor


def exactly(value: float):
    return pytest.approx(value, rel=1e-12)


def test_nothing_known_is_full_faith():
    assert Reliability().factor == 1.0


def test_hits_by_expected_hits_with_four_of_faith():
    assert after(([(b"x", 0.5)], b"y")) == exactly(4 / 4.5)
    assert after(([(b"x", 0.5)], b"x")) == exactly(5 / 4.5)
    assert after(([(b"x", 0.5), (b"y", 0.25)], b"y")) == exactly(5 / 4.75)


def test_both_sums_decay_by_a_fiftieth_per_guess():
    missed, hit = ([(b"x", 0.8)], b"y"), ([(b"x", 0.6)], b"x")
    assert after(missed, missed) == exactly(4 / (4 + 0.98 * 0.8 + 0.8))
    assert after(missed, hit) == exactly(5 / (4 + 0.98 * 0.8 + 0.6))
    assert after(hit, missed) == exactly((4 + 0.98) / (4 + 0.98 * 0.6 + 0.8))
    assert after(hit, missed, missed) == exactly((4 + 0.98**2) / (4 + 0.98**2 * 0.6 + 0.98 * 0.8 + 0.8))


def test_no_more_than_a_fifth_above_its_word_is_believed():
    assert after(([(b"x", 0.0)], b"x")) == 1.2
    assert after(*[([(b"x", 0.1)], b"x")] * 50) == 1.2


def test_guesses_of_which_one_begins_the_other_are_one_hit_at_most():
    assert after(([(b"a", 0.9), (b"ab", 0.5)], b"abc")) == exactly(5 / 5.4)


def test_a_text_that_ends_within_a_guess_says_nothing_of_it():
    assert after(([(b"abcd", 0.9)], b"ab")) == 1.0
    assert after(([(b"abcd", 0.9)], b"ax")) == exactly(4 / 4.9)
    assert after(([(b"abcd", 0.9), (b"a", 0.25)], b"ab")) == exactly(5 / 4.25)


def test_what_says_nothing_is_not_forgotten_for():
    known = ([(b"x", 0.5)], b"y")
    assert after(known, ([(b"abcd", 0.9)], b"ab")) == after(known, ([], b"z")) == after(known) == exactly(4 / 4.5)


def test_only_the_last_guess_counts_once_and_where_it_was_made():
    source = Reliability()
    source.guess(3, [(b"x", 0.5)])
    source.guess(3, [(b"y", 0.25), (b"", 0.9)])
    source.settle(3, b"y")
    assert source.factor == exactly(5 / 4.25)
    source.settle(3, b"z")
    assert source.factor == exactly(5 / 4.25), "a guess is settled once"
    source.guess(4, [(b"x", 0.5)])
    source.settle(5, b"x")
    source.guess(6, [(b"x", 0.5)])
    source.settle(6, b"")
    assert source.factor == exactly(5 / 4.25)


def test_each_source_is_held_to_its_own_word():
    liar, honest = Source(SourceKind.DRAFTER), Source(SourceKind.DRAFTER)
    everyone = Reliabilities()
    for source in (liar, honest, PREDICTION):
        everyone.meet(source)
    for offset in range(10):
        everyone.meet(liar)  # again, which forgives nothing
        everyone.guess(liar, offset, [(b"x", 1.0)])
        everyone.guess(honest, offset, [(b"y", 0.8)])
        everyone.settle(offset, b"y")
    factors = everyone.factors()
    decayed = sum(0.98**n for n in range(10))
    assert factors[liar] == exactly(4 / (4 + decayed))
    assert factors[honest] == exactly((4 + decayed) / (4 + 0.8 * decayed))
    assert factors[PREDICTION] == 1.0
    assert set(factors) == {liar, honest, PREDICTION}
    with pytest.raises(KeyError):
        everyone.guess(LOOKUP, 0, [])
