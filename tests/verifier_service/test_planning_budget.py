"""Choosing plans takes no more than its share of the time, however many sessions choose, and all have their turn."""

from __future__ import annotations

import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from verifier_service.planning_budget import LONGEST_PAUSE, PATIENCE, PlanningBudget


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def budget_of(clock: Clock, share: float) -> PlanningBudget:
    return PlanningBudget(share, clock=clock, spent=clock)


def chosen(budget: PlanningBudget, clock: Clock, who: object, seconds: float) -> bool:
    """Ask, and if there is leave work so long."""
    with budget.choosing(who) as leave:
        granted = leave()
        if granted:
            clock.now += seconds
    return granted


def test_choices_take_no_more_than_their_share_and_all_have_their_turn(clock: Clock):
    """Although all always want to choose, and ask in the same order in every step."""
    budget, counted, began, spent = budget_of(clock, 0.02), Counter[int](), clock.now, 0.0
    while clock.now < began + 60:
        for who in range(16):
            if chosen(budget, clock, who, 0.008):
                counted[who] += 1
                spent += 0.008
        clock.now += 0.01
    assert 0.015 < spent / (clock.now - began) <= 0.0201
    assert len(counted) == 16 and max(counted.values()) - min(counted.values()) <= 1


def test_what_was_not_chosen_costs_nothing(clock: Clock):
    budget = budget_of(clock, 0.02)
    with budget.choosing("one"):
        clock.now += 1.0  # without asking: nothing is due
    for _ in range(3):
        assert chosen(budget, clock, "one", 0.0)  # known already: no time


def test_who_does_not_ask_again_holds_nobody_up(clock: Clock):
    budget = budget_of(clock, 0.5)
    assert chosen(budget, clock, "one", 0.5)
    assert not chosen(budget, clock, "gone", 0.5) and not chosen(budget, clock, "two", 0.5)
    clock.now += PATIENCE - 0.1
    assert not chosen(budget, clock, "two", 0.5), "it waits behind the one before"
    clock.now += 0.2
    assert chosen(budget, clock, "two", 0.5)


def test_a_choice_that_fails_is_paid_too(clock: Clock):
    budget = budget_of(clock, 0.5)
    with pytest.raises(RuntimeError), budget.choosing("one") as leave:
        assert leave()
        clock.now += 0.5
        raise RuntimeError
    assert not chosen(budget, clock, "one", 0.0)
    clock.now += 0.5
    assert chosen(budget, clock, "one", 0.0)


def test_one_slow_choice_does_not_end_planning(clock: Clock):
    budget = budget_of(clock, 0.02)
    assert chosen(budget, clock, "one", 10.0)
    clock.now += LONGEST_PAUSE
    assert chosen(budget, clock, "two", 0.0)


def test_two_threads_may_ask():
    """The engine's, which settles steps, and the event loop, where a replay ends."""
    budget, before = PlanningBudget(clock=lambda: 0.0, spent=lambda: 0.0), sys.getswitchinterval()

    def ask(name: str) -> int:
        granted = 0
        for number in range(4000):
            with budget.choosing(f"{name}{number % 50}") as leave:
                granted += leave()
        return granted

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as threads:
            assert all(threads.map(ask, ("engine", "loop")))
    finally:
        sys.setswitchinterval(before)
