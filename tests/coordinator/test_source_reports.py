"""Who drafted, as verifiers report it and the coordinator tells it."""

from __future__ import annotations

import pytest

from coordinator.reports import MOST, LinkFacts, read_verifier_report
from coordinator.status import status_of_fleet
from coordinator.telemetry import LinkRates
from dragoman.fleet import status_as_dict
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.source import SourceKind
from tests.support.fleet_members import FakeDrafter, FleetDriver, good_report, verifier


def by_source(source: pb.DraftSource, accepted: int, drafted: int, **drafter: str) -> pb.SourceStats:
    return pb.SourceStats(source=source, draft_tokens=drafted, accepted_tokens=accepted, **drafter)


def test_what_others_guessed_is_not_the_drafters():
    report = good_report()
    lookup, smollm = by_source(pb.DRAFT_SOURCE_LOOKUP, 7, 70), by_source(pb.DRAFT_SOURCE_DRAFTER, 3, 10, name="d")
    report.sessions[0].sources.extend([lookup, smollm, by_source(99, 1, 1)])  # the last one is a newer verifier's
    report.links[0].draft_tokens, report.links[0].accepted_tokens = 40, 12
    facts, problems = read_verifier_report(report)
    session = facts.sessions["s"]
    assert not problems and (session.draft_tokens, session.accepted) == (10, 3)
    assert [(source.kind, source.name, source.draft_tokens) for source in session.sources] == [
        (SourceKind.LOOKUP, "", 70),
        (SourceKind.DRAFTER, "d", 10),
    ]
    assert (facts.links[1].draft_tokens, facts.links[1].accepted) == (40, 12)
    del report.sessions[0].sources[:]  # a verifier that does not tell them apart
    facts, _ = read_verifier_report(report)
    assert (facts.sessions["s"].draft_tokens, facts.sessions["s"].accepted) == (80, 10)


def test_sources_that_cannot_be_are_left_out():
    report = good_report()
    drafter = pb.DRAFT_SOURCE_DRAFTER
    good = by_source(drafter, 1, 2)
    bad = [by_source(drafter, 3, 2), by_source(drafter, 1, 2, name="x" * 1000), by_source(drafter, 1, MOST + 1)]
    report.sessions[0].sources.extend([good, *bad])
    report.links.add(link=2, draft_tokens=1, accepted_tokens=2)
    facts, problems = read_verifier_report(report)
    assert len(problems) == 4 and set(facts.links) == {1}
    assert len(facts.sessions["s"].sources) == 1 and facts.sessions["s"].draft_tokens == 2
    report.sessions[0].sources.extend([good] * 5000)
    facts, _ = read_verifier_report(report)
    assert len(facts.sessions["s"].sources) < 20


def test_status_tells_who_drafted_and_how_well_each_drafter_does():
    """Two drafters of one session: what they achieve is told apart, and the target's lookup is neither's."""
    target = verifier("s")
    target.link(1, "d1")
    target.link(2, "d2")
    driver = FleetDriver(target, FakeDrafter("d1"), FakeDrafter("d2"))
    [member] = [joined for joined in driver.members if joined.instance == "v1"]
    for number in range(1, 9):
        report = target.report()
        session = report.verifier.sessions[0]
        session.links[:], session.steps, session.draft_tokens, session.accepted_tokens = [1, 2], number, 99, 60
        session.sources.extend([
            by_source(pb.DRAFT_SOURCE_LOOKUP, 40, 50),
            by_source(pb.DRAFT_SOURCE_DRAFTER, 2 * number, 4 * number, name="ann", model="m", instance="d1"),
            by_source(pb.DRAFT_SOURCE_DRAFTER, number, 10 * number, name="bob", model="m", instance="d2"),
        ])  # fmt: skip
        for link, (accepted, drafted) in zip(report.verifier.links, ((2, 4), (1, 10)), strict=True):
            link.accepted_tokens, link.draft_tokens = 100 + accepted * number, 1000 + drafted * number
        driver.now += 0.25
        driver.fleet.receive(member, report, driver.now)
    status = status_of_fleet(driver.fleet, driver.now)
    rates = {found.instance: found.drafter for found in status.members if found.HasField("drafter")}
    assert rates["d1"].acceptance_rate == pytest.approx(0.5) and rates["d2"].acceptance_rate == pytest.approx(0.1)
    assert (rates["d1"].accepted_tokens, rates["d1"].draft_tokens) == (116, 1032)
    [session] = status.sessions
    assert session.acceptance_rate == pytest.approx(3 / 14), "of drafters only"
    assert [(one.source, one.name, one.accepted_tokens, one.draft_tokens) for one in session.sources] == [
        (pb.DRAFT_SOURCE_LOOKUP, "", 40, 50),
        (pb.DRAFT_SOURCE_DRAFTER, "ann", 16, 32),
        (pb.DRAFT_SOURCE_DRAFTER, "bob", 8, 80),
    ]
    [told] = status_as_dict(status)["sessions"]
    assert [one["source"] for one in told["sources"]] == ["lookup", "drafter", "drafter"]
    assert told["sources"][1] == {
        "source": "drafter", "name": "ann", "model": "m", "instance": "d1", "draft_tokens": 32, "accepted_tokens": 16,
    }  # fmt: skip


def test_a_session_that_only_its_target_drafts_for_has_no_acceptance():
    target = verifier("s")
    driver = FleetDriver(target)
    [member] = driver.members
    for number in range(1, 5):
        report = target.report()
        session = report.verifier.sessions[0]
        session.steps, session.draft_tokens, session.accepted_tokens = number, 9 * number, number
        session.sources.append(by_source(pb.DRAFT_SOURCE_LOOKUP, number, 9 * number))
        driver.now += 0.25
        driver.fleet.receive(member, report, driver.now)
    [session] = status_of_fleet(driver.fleet, driver.now).sessions
    assert not session.HasField("acceptance_rate") and not session.acceptance_history


def test_figures_of_a_stream_end_with_it():
    rates = LinkRates()
    for now in range(3):
        rates.observe_links(
            {1: LinkFacts(1, "", "", "", 4, None, None, draft_tokens=10 * now, accepted=now)}, float(now)
        )
    assert rates.of(1) == (10.0, 1.0) and rates.of(2) == (0.0, 0.0)
    rates.observe_links({}, 3.0)
    assert rates.of(1) == (0.0, 0.0)
