"""Choosing plans takes no more than its share of the time, however many sessions choose."""

from __future__ import annotations

import pytest

from verifier_service.planning_budget import PlanningBudget


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_choices_take_no_more_than_their_share():
    clock = Clock()
    budget = PlanningBudget(0.02, clock)
    began, spent, choices = clock.now, 0.0, 0
    while clock.now < began + 10:
        with budget.choosing():
            if budget.take():
                clock.now += 0.008
                spent += 0.008
                choices += 1
        clock.now += 0.001
    assert 0.015 < spent / (clock.now - began) < 0.0205 and choices > 20


def test_what_was_not_chosen_costs_nothing():
    clock = Clock()
    budget = PlanningBudget(0.02, clock)
    for _ in range(3):
        with budget.choosing():
            clock.now += 1.0  # without asking: nothing is due
        with budget.choosing():
            assert budget.take()  # known already: no time


def test_a_choice_that_fails_is_paid_too():
    clock = Clock()
    budget = PlanningBudget(0.5, clock)
    with pytest.raises(RuntimeError), budget.choosing():
        assert budget.take()
        clock.now += 1.0
        raise RuntimeError
    clock.now += 0.9
    assert not budget.take()
    clock.now += 0.2
    assert budget.take()
