"""When which of the two ways is taken, phase by phase, and the running figures of both."""

from __future__ import annotations

import itertools

import pytest

from speculation.planning.patience import Patience
from speculation.planning.trial import Trial

STEPS = 8


def phases(trial: Trial, count: int, *, taken: float, other: float) -> str:
    """Which way each phase goes, T or F, as "TTF": so many seconds a step of one token."""
    ways = []
    for _ in range(count):
        ways.append(trial.taken)
        for _ in range(STEPS):
            assert trial.taken is ways[-1], "a way is kept for a whole phase"
            trial.observe_step(seconds=taken if trial.taken else other, tokens=1)
    return "".join("FT"[way] for way in ways)


def lengths(ways: str) -> list[tuple[str, int]]:
    return [(way, len(list(same))) for way, same in itertools.groupby(ways)]


@pytest.mark.parametrize("taken, other", [(0.3, 0.4), (0.3, 0.331)])
def test_a_way_that_is_clearly_behind_is_tried_ever_more_seldom(taken: float, other: float):
    ways = lengths(phases(Trial(), 200, taken=taken, other=other))
    assert ways[:9] == [(way, count) for way, count in zip("TFTFTFTFT", [2, 1, 8, 1, 16, 1, 32, 1, 64], strict=True)]
    assert ways[9:] == [("F", 1), ("T", 64), ("F", 1), ("T", 8)]
    ways = lengths(phases(Trial(), 200, taken=other, other=taken))
    assert ways[:9] == [(way, count) for way, count in zip("TFTFTFTFT", [2, 1, 1, 8, 1, 16, 1, 32, 1], strict=True)]
    assert ways[9:] == [("F", 64), ("T", 1), ("F", 64), ("T", 1), ("F", 7)]


@pytest.mark.parametrize("taken, other", [(1.0, 1.0), (1.0, 1.1), (0.3, 0.32), (0.0, 0.0), (0.0, 1.0)])
def test_a_way_that_is_hardly_behind_is_tried_every_four_phases(taken: float, other: float):
    """Of equals the way in question goes on. What takes no time is no measure."""
    ways = lengths(phases(Trial(), 18, taken=taken, other=other))
    assert ways == [("T", 2), ("F", 1), ("T", 4), ("F", 1), ("T", 4), ("F", 1), ("T", 4), ("F", 1)]


def test_a_way_that_comes_near_again_is_tried_more_often():
    trial = Trial()
    assert phases(trial, 28, taken=1.0, other=1.3) == "TTF" + "T" * 8 + "F" + "T" * 16
    assert phases(trial, 6, taken=1.0, other=0.7) == "FTTTTF"


def test_figures_are_seconds_per_token_and_follow_by_two_fifths():
    trial = Trial()
    assert trial.seconds_per_token(taken=True) is None
    for step in range(STEPS):
        assert trial.seconds_per_token(taken=True) is None
        trial.observe_step(seconds=1.0, tokens=3 if step else 1)
    assert trial.seconds_per_token(taken=True) == pytest.approx(8 / 22)
    assert trial.seconds_per_token(taken=False) is None
    for _ in range(STEPS):
        trial.observe_step(seconds=1.0, tokens=1)
    assert trial.seconds_per_token(taken=True) == pytest.approx(8 / 22 + 0.4 * (1 - 8 / 22))
    for _ in range(STEPS):
        trial.observe_step(seconds=0.5, tokens=0)
    assert trial.seconds_per_token(taken=False) == 4.0, "steps without a token are time all the same"


@pytest.mark.parametrize("learns, times", [(False, (4, 8, 16, 32, 64, 64)), (True, (4, 16, 64, 64))])
def test_a_way_that_failed_is_left_at_once_and_longer_each_time(learns: bool, times: tuple[int, ...]):
    """Twice as long, and twice again where it is clearly behind as well."""
    trial = Trial(learns=learns)
    for away in times:
        trial.observe_step(seconds=1.0, tokens=1, failed=True)
        assert trial.seconds_per_token(taken=True) == 1.0, "a phase that was cut short counts"
        assert lengths(phases(trial, away, taken=1.0, other=0.1)) == [("F", away)]
        assert trial.taken


def test_a_failure_is_of_the_way_that_was_taken():
    trial = Trial(learns=False)
    trial.observe_step(seconds=1.0, tokens=1, failed=True)
    for _ in range(4 * STEPS):
        assert not trial.taken
        trial.observe_step(seconds=1.0, tokens=1, failed=True)
    assert trial.taken


def test_without_learning_the_way_is_taken_however_slow():
    assert phases(Trial(learns=False), 20, taken=9.0, other=1.0) == "T" * 20


def test_patience_learns_from_steps_that_could_have_been_held():
    patience = Patience(0.0)
    for _ in range(3 * STEPS):
        patience.observe_step(seconds=1.0, tokens=1)
        assert patience.hold(0.25) == 0.25 and patience.hold() == 0.0
    patience.observe_step(seconds=1.0, tokens=1, planned=0.25, unanswered=True)
    assert patience.hold(0.25) == 0.0
    assert Patience(0.2).hold(0.1) == 0.2 and Patience(0.2).hold(0.3) == 0.3
    patience = Patience(0.5)
    patience.observe_step(seconds=1.0, tokens=1, unanswered=True)
    assert patience.hold(9.0) == 0.0
    for _ in range(4 * STEPS):
        patience.observe_step(seconds=0.1, tokens=1)
    assert patience.hold() == 0.5
