"""Reports that cannot be true: ignored, counted, and never fatal."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.reports import ENTRIES, MOST, SessionFacts, read_drafter_report, read_verifier_report
from coordinator.status import status_of_fleet
from coordinator.telemetry import PRIOR_ACCEPTANCE, Credit, PairAcceptance, Rate, Trend
from protos.dragoman.v1 import dragoman_pb2 as pb
from tests.support.fleet_members import FakeDrafter, FakeSession, FleetDriver, good_report, verifier

WRONG_SECONDS = (math.nan, math.inf, -math.inf, -1.0, 1e9)


def test_a_good_report_is_read_in_full():
    facts, problems = read_verifier_report(good_report())
    assert not problems
    session, link = facts.sessions["s"], facts.links[1]
    assert session.links == (1,) and session.steps == 10 and session.costs and session.plan
    assert link.round_trip == 0.005 and link.seconds_per_token == 0.003 and link.max_sessions == 4
    assert facts.committed == 20


@pytest.mark.parametrize("wrong", WRONG_SECONDS)
def test_figures_that_cannot_be_are_not_known(wrong: float):
    report = good_report()
    report.links[0].round_trip = report.links[0].seconds_per_token = wrong
    report.sessions[0].costs.step = wrong
    facts, problems = read_verifier_report(report)
    assert len(problems) == 3
    assert facts.links[1].round_trip is None and facts.links[1].seconds_per_token is None
    assert facts.sessions["s"].costs is None and facts.sessions["s"].links == (1,)
    drafter, problems = read_drafter_report(pb.DrafterReport(seconds_per_token=wrong, attached_to=["a:1", "b/c"]))
    assert len(problems) == 2
    assert drafter.seconds_per_token is None and drafter.attached_to == ("a:1",)


@pytest.mark.parametrize("rates", [[], [math.nan], [0.5, 1.5], [-0.1], [math.inf]])
def test_rates_must_be_shares(rates: list[float]):
    report = good_report()
    report.sessions[0].costs.acceptance[:] = rates
    facts, problems = read_verifier_report(report)
    assert len(problems) == 1 and facts.sessions["s"].costs is None


def test_what_belongs_nowhere_is_left_out_and_the_rest_is_used():
    report = good_report()
    report.sessions[0].links.extend([1, 7])
    report.links.add(link=1, name="again")
    report.links.add(link=2, name="x" * 1000)
    report.links.add(link=3, spans=MOST + 1)
    report.sessions.add(session="s")
    report.sessions.add(session="")
    report.sessions.add(session="x" * 1000)
    report.sessions.add(session="boasts", draft_tokens=1, accepted_tokens=2)
    report.sessions.add(session="absurd", steps=2**63)
    report.sessions.add(session="odd", plan=pb.SpeculationPlan(width=100_000, span_tokens=1))
    facts, problems = read_verifier_report(report)
    assert len(problems) == 10
    assert set(facts.links) == {1} and facts.links[1].name == "name of d1"
    assert set(facts.sessions) == {"s", "odd"} and facts.sessions["odd"].plan is None
    assert facts.sessions["s"].links == (1,)


def test_a_report_is_read_only_so_far():
    report = pb.VerifierReport(links=[pb.LinkReport(link=number) for number in range(ENTRIES + 1)])
    facts, problems = read_verifier_report(report)
    assert len(facts.links) == ENTRIES and len(problems) == 1


def test_bad_reports_are_counted_and_logged_once(caplog: pytest.LogCaptureFixture):
    target, drafter = verifier("s"), FakeDrafter()
    driver = FleetDriver(target, drafter)
    driver.run(0.5)
    joined = {member.instance: member for member in driver.members}
    bad = pb.JoinRequest(verifier=pb.VerifierReport(sessions=[pb.SessionReport()]))
    for _ in range(5):
        driver.fleet.receive(joined["v1"], bad, driver.now)
    # A drafter that plays verifier, a second registration, and nothing at all.
    for request in (target.report(), pb.JoinRequest(registration=target.registration()), pb.JoinRequest()):
        driver.fleet.receive(joined["d1"], request, driver.now)
    status = status_of_fleet(driver.fleet, driver.now)
    assert {member.instance: member.rejected_reports for member in status.members} == {"v1": 5, "d1": 3}
    assert len(caplog.records) == 2


floats = st.one_of(st.floats(), st.sampled_from([0.0, 0.001, 0.03, 1.0]))
counts = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 100))
links = st.builds(
    pb.LinkReport,
    link=st.integers(0, 3),
    instance=st.sampled_from(["", "d1", "d2", "x" * 999]),
    name=st.just("n"),
    max_sessions=st.integers(0, 2**32 - 1),
    round_trip=st.none() | floats,
    seconds_per_token=st.none() | floats,
    spans=counts,
    draft_tokens=counts,
    accepted_tokens=counts,
)
sources = st.builds(
    pb.SourceStats,
    source=st.integers(0, 6),
    name=st.sampled_from(["", "n", "x" * 999]),
    instance=st.sampled_from(["", "d1"]),
    draft_tokens=counts,
    accepted_tokens=counts,
)
sessions = st.builds(
    pb.SessionReport,
    session=st.sampled_from(["", "s", "t"]),
    links=st.lists(st.integers(0, 4), max_size=3),
    declined_links=st.lists(counts, max_size=2),
    no_draft=st.booleans(),
    committed_tokens=counts,
    steps=counts,
    draft_tokens=counts,
    accepted_tokens=counts,
    sources=st.lists(sources, max_size=3),
    plan=st.none() | st.builds(pb.SpeculationPlan, width=st.integers(0, 300), lookahead=st.integers(0, 300),
                               span_tokens=st.integers(0, 9), stop_threshold=floats, patience=floats,
                               alternatives=st.integers(0, 9)),
    costs=st.none() | st.builds(pb.StepCosts, step=floats, step_per_token=floats,
                                acceptance=st.lists(floats, max_size=5), drafted_steps=counts, alone_share=floats),
)  # fmt: skip
reports = st.builds(
    pb.VerifierReport,
    links=st.lists(links, max_size=4),
    sessions=st.lists(sessions, max_size=3),
    committed_tokens=counts,
    kv_cache_bytes=counts,
)


@given(st.lists(reports, max_size=6))
def test_no_report_upsets_the_fleet(said: list[pb.VerifierReport]):
    target = verifier()
    honest = verifier("fine", instance="v2", address="10.0.0.2:1")
    honest.link(1, "d1")
    driver = FleetDriver(honest, FakeDrafter())
    liar = driver.fleet.join(target.registration(), driver.now)
    for report in said:
        driver.fleet.receive(liar, pb.JoinRequest(verifier=report), driver.now)
        driver.run(0.5)
        status = status_of_fleet(driver.fleet, driver.now)
        for session in status.sessions:
            figures = (session.tokens_per_second, session.tokens_per_step, session.expected_speed_up)
            assert all(math.isfinite(figure) and figure >= 0 for figure in figures)
    driver.run(2)
    assert honest.sessions["fine"].links == [1] or said  # a liar may crowd a drafter, but nothing breaks
    assert honest.sessions["fine"].steps > 0


@pytest.mark.parametrize("step", [1e-300, 1e-9, 9.9e-7])
def test_a_step_that_takes_no_time_is_planned_for_like_any_other(step: float):
    target = verifier("s")
    driver = FleetDriver(target, FakeDrafter())
    target.link(1, "d1")
    target.sessions["s"] = FakeSession(links=[1], steps=50, committed=90, drafted=80, accepted=40, drafted_steps=50)
    report = target.report()
    report.verifier.sessions[0].costs.step = step
    member = driver.fleet.join(verifier("other", instance="v9", address="10.0.0.9:1").registration(), driver.now)
    for _ in range(3):
        driver.fleet.receive(member, report, driver.now)
        driver.run(0.5)
    assert status_of_fleet(driver.fleet, driver.now).sessions


# ---- smoothing ----------------------------------------------------------------------------------------------------


def test_rates_follow_totals_and_survive_a_new_beginning():
    rate = Rate()
    assert rate.per_second == 0
    for number in range(20):
        rate.observe_total(10 * number, number * 0.25)
    assert rate.per_second == pytest.approx(40)
    rate.observe_total(0, 5.0)
    assert rate.per_second == 0
    rate.observe_total(5, 5.5)
    assert rate.per_second == pytest.approx(10)


def test_history_is_even_though_reports_are_not():
    trend = Trend(samples=4, seconds=1.0)
    for now, tokens in ((0.0, 0), (0.3, 10), (1.1, 20), (1.2, 30), (4.3, 40)):
        trend.observe_facts(SessionFacts("s", (), draft_tokens=tokens, accepted=tokens // 2, steps=tokens), now)
    assert list(trend.history) == [0.5] * 4
    trend.observe_facts(SessionFacts("s", (), draft_tokens=1, steps=1), 5.3)  # began anew
    assert trend.acceptance_rate == 0


def test_pairs_of_models_are_kept_apart_and_not_without_bound():
    pairs = PairAcceptance()
    pairs.observe_rate("a", "t", 0.9, 1000)
    assert pairs.rate("a", "t") == pytest.approx(0.9, abs=0.01) and pairs.rate("b", "t") == PRIOR_ACCEPTANCE
    for number in range(5000):
        pairs.observe_rate(f"x{number}", "t", 0.5, 1)
    known = [number for number in range(5000) if pairs.rate(f"x{number}", "t") != PRIOR_ACCEPTANCE]
    assert known == list(range(5000 - 1024, 5000)), "the newest"
    assert pairs.rate("a", "t") == PRIOR_ACCEPTANCE


def test_credit_falls_with_broken_promises_and_comes_back_with_time():
    credit = Credit(0.0)
    assert credit.value(0.0) == 1
    credit.observe_gain(1.2, 1.4, 100, 1.0)
    assert credit.value(1.0) == 1  # the model may be off by so much
    credit.observe_gain(0.0, 1.5, 300, 2.0)
    assert credit.value(2.0) < 0.2
    assert credit.value(2.0) < credit.value(60.0) < credit.value(600.0)
    assert credit.value(3600.0) == 1
