"""Schedules of faults in virtual time: whatever happens when, the same bytes, nobody stuck, and nothing held.

``DRAGOMAN_SCHEDULES``: how many (`make schedules`). A seed is a schedule: ``run_schedule(SEED)`` repeats one.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from tests.support.virtual_fleet import run_schedule

SCHEDULES = int(os.environ.get("DRAGOMAN_SCHEDULES", "48"))
#: So that the workers share them. Half of all schedules accept no draft token, so a part has 24 of them at least: that
#: none of its schedules does is then one chance in ten million, whatever change of the code draws them anew.
PARTS = max(1, min(8, SCHEDULES // 24))
#: What every few schedules have in them, or they would show little.
EXPECTED = {"finished", "accepted", "order", "cut", "stall", "crash", "hand over", "drain", "jump", "preempted"}


@pytest.mark.parametrize("part", range(PARTS))
def test_every_schedule_ends_in_the_same_bytes(part: int):
    happened: Counter[str] = Counter()
    for seed in range(part, SCHEDULES, PARTS):
        try:
            course = run_schedule(seed)
        except Exception as error:
            raise AssertionError(f"schedule {seed}") from error
        assert not course.different and not course.leaked, f"schedule {seed}: {course.different} {course.leaked}"
        happened += course.happened
    assert happened["finished"] and happened["accepted"]
    if SCHEDULES >= 1000:
        assert {what for what in EXPECTED if happened[what]} == EXPECTED


def test_one_seed_is_one_course():
    first, second = run_schedule(3), run_schedule(3)
    assert first == second and first.happened
