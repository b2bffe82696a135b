"""Patience finds out whether holding a step back pays, and stays with it."""

from __future__ import annotations

import random

import pytest

from speculation.planning.patience import FORGIVE_EVERY, FORGIVE_SELDOM, Patience


def drive(patience: Patience, steps: int, *, held: float, free: float, tokens: int = 2) -> list[bool]:
    """Which of the steps were held, where a held or a free step takes so many seconds."""
    holds = []
    for _ in range(steps):
        holds.append(patience.hold() > 0)
        patience.observe_step(seconds=held if holds[-1] else free, tokens=tokens)
    return holds


@pytest.mark.parametrize("held, free, pays", [(0.3, 0.4, True), (0.5, 0.4, False)])
def test_it_settles_on_what_pays_and_still_tries_the_other(held: float, free: float, pays: bool):
    holds = drive(Patience(0.2), 2000, held=held, free=free)
    assert holds[0]
    later = holds[200:]
    assert 0.9 < later.count(pays) / len(later) < 1


def test_it_notices_that_things_have_changed():
    patience = Patience(0.2)
    drive(patience, 400, held=0.3, free=0.4)
    assert drive(patience, 3000, held=0.5, free=0.4)[-500:].count(True) < 60


def test_one_unanswered_hold_is_enough():
    patience = Patience(0.2)
    assert patience.hold() == 0.2
    patience.observe_step(seconds=1.2, tokens=1, unanswered=True)
    assert patience.hold() == 0


def test_without_learning_it_holds_but_for_a_while_after_no_draft_came():
    patience = Patience(0.2, learns=False)
    assert all(drive(patience, 200, held=0.5, free=0.1))
    patience.observe_step(seconds=1.2, tokens=1, unanswered=True)
    holds = drive(patience, 200, held=0.5, free=0.1)
    assert not holds[0] and holds[-1] and holds == sorted(holds)


def test_a_plan_may_ask_for_patience():
    patience = Patience(0.0)
    assert patience.hold(0.3) == 0.3 and patience.hold() == 0


def test_no_patience_never_holds():
    patience = Patience(0.0)
    assert not any(drive(patience, 100, held=0.1, free=1.0))


def test_a_plan_that_holds_a_whole_round_trip_for_little_is_left_after_a_few_steps():
    """As seen at 80 ms: steps of 12 ms without patience, of 92 ms with it, 2.5 tokens each. It lasted for 16 steps."""
    patience = Patience(0.0)
    for _ in range(30):
        patience.observe_step(seconds=0.012, tokens=1)
    held = 0
    for _ in range(200):
        holds = patience.hold(0.1) > 0
        held += holds
        patience.observe_step(seconds=0.092 if holds else 0.012, tokens=3 if holds else 1, planned=0.1)
    assert 3 <= held <= 12


def test_a_plan_that_holds_and_pays_is_kept_though_two_steps_brought_nothing():
    patience = Patience(0.0)
    for _ in range(30):
        patience.observe_step(seconds=0.012, tokens=1)
    for tokens in (1, 1, *[14] * 60):
        if patience.hold(0.1):
            patience.observe_step(seconds=0.092, tokens=tokens, planned=0.1)
        else:
            patience.observe_step(seconds=0.012, tokens=1, planned=0.1)
    assert patience.hold(0.1)


def test_bad_luck_in_some_steps_does_not_cost_the_way_that_wins():
    """Held, a step takes 92 ms and brings one to nine tokens, 20 % faster on average than one of 25.5 ms that brings
    one."""
    chance, patience, held = random.Random(7), Patience(0.0), 0
    for _ in range(4000):
        holds = patience.hold(0.1) > 0
        held += holds
        tokens = 1
        while holds and tokens < 9 and chance.random() < 0.81:
            tokens += 1
        patience.observe_step(seconds=0.092 if holds else 0.0255, tokens=tokens, planned=0.1)
    assert held > 0.35 * 4000


def test_how_fast_other_texts_are_does_not_matter_once_both_ways_were_tried():
    """Four steps without a choice, at 5 ms a token, for each with one: 20 ms a token held, and 40 not."""
    patience, held = Patience(0.0), 0
    for _ in range(1000):
        for _ in range(4):
            patience.observe_step(seconds=0.005, tokens=1)
        holds = patience.hold(0.1) > 0
        held += holds
        patience.observe_step(seconds=0.1 if holds else 0.04, tokens=5 if holds else 1, planned=0.1)
    assert held > 0.9 * 1000


def failed(patience: Patience) -> None:
    """A step is held in vain, as soon as one is held."""
    while not patience.hold():
        patience.observe_step(seconds=0.4, tokens=2)
    patience.observe_step(seconds=1.2, tokens=1, unanswered=True)
    assert not patience.hold()


@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("failures", [1, 3])
def test_what_failed_while_a_link_was_lost_is_forgiven(failures: int, learns: bool):
    patience = Patience(0.2, learns=learns)
    drive(patience, 200, held=0.3, free=0.4)
    for _ in range(failures):
        failed(patience)
    patience.forgive(now=50.0)
    assert patience.hold()
    assert all(drive(patience, 20, held=0.3, free=0.4)), "nor is what it failed of held against it"


def test_what_does_not_pay_is_not_forgiven_whether_it_failed_or_not():
    patience = Patience(0.2)
    drive(patience, 400, held=0.5, free=0.4)
    while patience.hold():  # a trial
        patience.observe_step(seconds=0.5, tokens=2)
    patience.forgive(now=50.0)
    assert not patience.hold()
    failed(patience)
    patience.forgive(now=60.0)
    assert not patience.hold()


def test_a_drafter_for_which_steps_wait_in_vain_is_forgiven_ever_more_seldom():
    """It drafts all the time, and never when a step waits."""
    patience, held, now = Patience(0.2, learns=False), [], 0.0
    while now < 1000.0:
        patience.forgive(now=now)
        if patience.hold():
            held.append(now)
        patience.observe_step(seconds=0.01, tokens=1, unanswered=patience.hold() > 0)
        now += 0.01
    forgiven = len([at for at in held if at > 0])
    by_trials = 1000.0 / 0.01 / 512 + 6  # phases of eight steps, up to 64 of them
    assert forgiven <= by_trials + 8, "after 5, 10, 20, 40 ... seconds"


def test_once_drafts_come_when_steps_wait_all_is_as_at_first():
    patience, now = Patience(0.2, learns=False), 0.0
    for _ in range(6):
        failed(patience)
        patience.forgive(now=now)
        assert patience.hold()
        now += FORGIVE_SELDOM
    patience.observe_step(seconds=0.1, tokens=3)
    for _ in range(3):
        failed(patience)
        patience.forgive(now=now)
        assert patience.hold()
        patience.observe_step(seconds=0.1, tokens=3)
        now += 2 * FORGIVE_EVERY
