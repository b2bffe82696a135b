"""Steps beside working drafters and without: what a step takes is told apart where processors are shared."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from speculation.planning import step_times
from speculation.planning.step_times import (
    FIRST_REST,
    LEAST_ALONE_SHARE,
    LONGEST_REST,
    REST_EVERY,
    REST_SELDOM,
    REST_STEPS,
    StepTimes,
)

STEP, PER_TOKEN = 0.016, 0.0001


@dataclass
class Target:
    """Its steps take ``share`` of the time while no drafter works, which is so ``lag`` seconds after it was told."""

    times: StepTimes
    share: float
    lag: float = 0.0
    sessions: int = 1
    drafters: tuple[int, ...] = (1,)
    now: float = 0.0
    _rested_at: float | None = None

    def step(self, draft_tokens: int = 4, *, drafted: bool = True) -> bool:
        """Whether it was drafted for."""
        drafted = drafted and not self.times.resting
        if drafted:
            self._rested_at = None
        elif self._rested_at is None:
            self._rested_at = self.now
        alone = self._rested_at is not None and self.now >= self._rested_at + self.lag / 2
        tokens = draft_tokens * self.sessions if drafted else 0
        seconds = (STEP + PER_TOKEN * tokens) * (self.share if alone else 1.0)
        self.now += seconds
        lag = self.lag if drafted else 0.0  # nobody is asked whose plan is none
        self.times.observe_step(
            tokens,
            seconds,
            drafters=self.drafters if drafted else (),
            now=self.now,
            round_trip=lag,
            sessions=self.sessions,
        )
        return drafted

    def run(self, steps: int) -> list[bool]:
        return [self.step(draft_tokens=index % 9) for index in range(steps)]


@pytest.mark.parametrize("lag", [0.0, 0.04, 0.16])
@pytest.mark.parametrize("sessions", [1, 8])
@pytest.mark.parametrize("share", [0.3, 0.65, 0.9])
def test_shared_processors_are_noticed(share: float, sessions: int, lag: float):
    """Whatever is on its way when the rest begins is not counted."""
    target = Target(StepTimes(), share, lag=lag, sessions=sessions)
    assert target.times.alone_share == 1.0
    target.run(FIRST_REST + 40)
    assert target.times.alone_share == pytest.approx(share, rel=0.01) and not target.times.resting
    step, per_token = target.times.line
    others = 4 * (sessions - 1)
    assert step == pytest.approx(STEP + PER_TOKEN * others, rel=0.05), "the rest is not counted among drafted steps"
    assert per_token == pytest.approx(PER_TOKEN, rel=0.5)


@pytest.mark.parametrize(("share", "found", "every"), [(0.65, 0.65, REST_EVERY), (0.97, 1.0, REST_SELDOM)])
def test_rests_are_short_and_rare(share: float, found: float, every: int):
    target = Target(StepTimes(), share, sessions=3)
    drafted = target.run(FIRST_REST + 2 * every + 200)
    rests = [index for index in range(1, len(drafted)) if drafted[index - 1] and not drafted[index]]
    assert rests[0] == FIRST_REST and len(rests) == 3
    assert rests[1] - rests[0] == pytest.approx(every, abs=2 * REST_STEPS)
    assert drafted.count(False) <= 3 * (REST_STEPS + 4)
    assert target.times.alone_share == pytest.approx(found, rel=0.01)


def test_noise_is_not_taken_for_sharing():
    target = Target(StepTimes(), 0.95)
    target.run(FIRST_REST + 40)
    assert target.times.alone_share == 1.0


def test_nothing_is_believed_to_take_no_time():
    target = Target(StepTimes(), LEAST_ALONE_SHARE / 2)
    target.run(FIRST_REST + 200)
    assert target.times.alone_share == LEAST_ALONE_SHARE


def test_who_shall_not_learn_never_rests():
    target = Target(StepTimes(learns=False), 0.5)
    assert all(target.run(2 * FIRST_REST + REST_SELDOM)) and target.times.alone_share == 1.0


def test_a_rest_ends_though_nothing_is_seen_of_it():
    """Its session ended, and the next comes much later."""
    target = Target(StepTimes(), 0.5)
    target.run(FIRST_REST)
    assert target.times.resting
    target.now += LONGEST_REST + 1.0
    target.step()
    assert not target.times.resting and target.times.alone_share == 1.0
    target.run(FIRST_REST + 40)
    assert target.times.alone_share == pytest.approx(0.5, rel=0.01), "it is tried again soon"


def test_steps_without_drafters_are_counted_as_what_they_would_take_beside_one():
    """A session that is not drafted for, long after the last that was: the figures stay comparable."""
    target = Target(StepTimes(), 0.5)
    target.run(FIRST_REST + 40)
    target.now += step_times.LONGEST_REST + 1.0
    for _ in range(200):
        target.step(drafted=False)
    assert target.times.line[0] == pytest.approx(STEP, rel=0.05)


def test_a_target_without_drafters_knows_its_steps():
    target = Target(StepTimes(), 0.5)
    for _ in range(20):
        target.step(drafted=False)
    assert target.times.seen and target.times.line[0] == pytest.approx(STEP / 2, rel=0.01)
    assert not target.times.resting and target.times.alone_share == 1.0


@pytest.mark.parametrize("step", [0.3, 1.0, 4.0])
def test_slow_steps_are_measured_too(step: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tests.speculation.test_step_times.STEP", step)
    target = Target(StepTimes(), 0.6)
    target.run(FIRST_REST + 20)
    assert target.times.alone_share == pytest.approx(0.6, rel=0.01)


def test_drafts_are_not_due_in_a_rest_and_until_drafters_have_heard_of_its_end():
    target = Target(StepTimes(), 0.6, lag=0.1)
    settling = []
    for _ in range(FIRST_REST + 60):
        target.step()
        settling.append((target.times.resting, target.times.settling))
    assert settling.count((True, False)) == 0 and settling[-1] == (False, False)
    after = settling.count((False, True))
    assert after == pytest.approx((0.1 + 2 * 0.6 * STEP) / STEP, abs=2)


def test_who_is_drafted_for_in_a_rest_puts_it_off():
    """A session that opened meanwhile: what is seen while its drafter works is no rest."""
    times, now = StepTimes(), 0.0
    for _ in range(FIRST_REST):
        now += STEP
        times.observe_step(0, STEP, drafters=(1,), now=now)
    for index in range(5):
        now += STEP
        times.observe_step(0, STEP / 2, drafters=(1,) if index == 4 else (), now=now)
    assert times.resting
    for _ in range(REST_STEPS):
        now += STEP
        times.observe_step(0, STEP, now=now)
    assert times.resting, "those before it do not count"


def test_steps_between_drafted_ones_are_not_learned_before_the_share_is_known():
    """Under a rule that tries both ways in turn: they would pass for steps beside a drafter."""
    times, now = StepTimes(learns=False), 0.0
    for index in range(200):
        drafted = index // 8 % 2 == 0
        seconds = STEP if drafted else STEP / 2
        now += seconds
        times.observe_step(0, seconds, drafters=(1,) if drafted else (), now=now)
    assert times.line[0] == pytest.approx(STEP, rel=0.01)


@pytest.mark.parametrize("per_token", [0.00002, 0.00005, 0.0001])
@pytest.mark.parametrize("sessions", [4, 16])
def test_draft_tokens_of_others_are_not_taken_for_sharing(sessions: int, per_token: float):
    """In a rest they are gone as well, and the step is shorter by what they cost."""
    times, now = StepTimes(free=95), 0.0
    for index in range(FIRST_REST + 40):
        drafted = not times.resting
        tokens = sum((index + session) % 17 for session in range(sessions)) if drafted else 0
        seconds = 0.006 + per_token * tokens
        now += seconds
        times.observe_step(tokens, seconds, drafters=(1,) if drafted else (), now=now, sessions=sessions)
    assert times.alone_share == 1.0 and not times.resting


def test_a_constant_load_of_a_device_with_room_is_not_taken_for_cost():
    """What its tokens cost is not seen where there are always as many; a tree of 64 is all but free there."""
    times, now = StepTimes(free=95), 0.0
    for _ in range(FIRST_REST + 40):
        drafted = not times.resting
        seconds = 0.006 if drafted else 0.006 * 0.6
        now += seconds
        times.observe_step(64 if drafted else 0, seconds, drafters=(1,) if drafted else (), now=now, sessions=4)
    assert times.alone_share == pytest.approx(0.6, rel=0.1)


@pytest.mark.parametrize("sessions", [1, 3, 16])
def test_one_slow_step_before_a_rest_is_one_accident(sessions: int):
    target = Target(StepTimes(), 1.0, sessions=sessions)
    target.run(FIRST_REST - 2)
    target.times.observe_step(4, 0.5, drafters=(1,), now=target.now + 0.5, sessions=sessions)
    target.now += 0.5
    target.run(40)
    assert target.times.alone_share == 1.0


@pytest.mark.parametrize("sessions", [8, 16, 48])
def test_sessions_that_are_stepped_one_by_one_all_hear_of_a_rest(sessions: int):
    """Each at its own step, which with slow steps is long after the first."""
    times, now, resting, undrafted = StepTimes(), 0.0, [False] * sessions, 0
    steps = FIRST_REST + 2 * REST_EVERY
    for index in range(steps):
        alone = all(resting)
        now += 0.25 * (0.5 if alone else 1.0)
        session = index % sessions
        drafted = not resting[session]
        undrafted += not drafted
        times.observe_step(0, 0.25 * (0.5 if alone else 1.0), drafters=(1,) if drafted else (), now=now)
        resting[session] = times.resting
    assert times.alone_share == pytest.approx(0.5, rel=0.02)
    assert undrafted < 0.15 * steps


def test_rests_that_measure_nothing_become_rare():
    """Of a session that takes no notice, say."""
    times, now, rests = StepTimes(), 0.0, 0
    for _ in range(40 * FIRST_REST):
        before = times.resting
        now += 0.25
        times.observe_step(0, 0.25, drafters=(1,), now=now)
        rests += times.resting and not before
    assert not times.resting or times.alone_share == 1.0
    assert rests <= 6


def test_a_drafter_that_joins_may_share_what_others_did_not():
    target = Target(StepTimes(), 1.0)
    target.run(FIRST_REST + 40)
    assert target.times.alone_share == 1.0
    target.run(200)
    target.drafters, target.share = (1, 2), 0.5
    target.run(FIRST_REST + 40)
    assert target.times.alone_share == pytest.approx(0.5, rel=0.01)


def test_sharing_that_has_ended_is_found_out_though_hardly_a_step_is_drafted_for():
    """Where processors are shared, drafting may not pay: then but a probe of 8 in 72 steps is drafted for."""
    target = Target(StepTimes(), 0.3)
    target.run(FIRST_REST + 40)
    assert target.times.alone_share == pytest.approx(0.3, rel=0.01)
    target.share = 1.0
    for index in range(1000):
        target.step(drafted=index % 72 < 8)
    assert target.times.alone_share == 1.0
