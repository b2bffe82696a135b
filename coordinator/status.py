"""The fleet's state as people ask for it."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Final

from coordinator.fleet import Fleet
from coordinator.registry import Kind, Member
from coordinator.reports import LinkFacts, SourceFacts
from coordinator.sessions import FleetSession, drafter_of
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.planning.cost_model import predict
from speculation.planning.plan_chooser import coarse
from transport import codec
from transport.limits import PROTOCOL_VERSION
from transport.version import VERSION

#: Sessions told of at most: with their histories they must fit into one message.
SESSIONS: Final = 2000


def status_of_fleet(fleet: Fleet, now: float) -> pb.StatusResponse:
    links: dict[str, list[tuple[Member, LinkFacts]]] = defaultdict(list)
    for verifier, link in fleet.links():
        links[drafter_of(verifier, link)].append((verifier, link))
    loads = fleet.loads()
    members: list[pb.MemberStatus] = [_verifier(fleet, member, now) for member in fleet.registry.verifiers]
    members += [
        _drafter(fleet, member, links.pop(member.instance, []), loads, now) for member in fleet.registry.drafters
    ]
    # Drafters that dialled a verifier without joining the coordinator draft all the same.
    members += [_unregistered_drafter(fleet, instance, found, loads) for instance, found in links.items()]
    sessions = [_session(session, loads) for session in list(fleet.sessions.values())[:SESSIONS]]
    members.sort(key=lambda member: (not member.HasField("verifier"), member.name))
    return pb.StatusResponse(
        protocol_version=PROTOCOL_VERSION,
        version=VERSION,
        uptime_seconds=now - fleet.started_at,
        members=members,
        sessions=sessions,
    )


def _member(member: Member, sessions: int, now: float) -> pb.MemberStatus:
    return pb.MemberStatus(
        instance=member.instance,
        name=member.name,
        model=member.model,
        sessions=sessions,
        max_sessions=member.max_sessions,
        uptime_seconds=now - member.registered_at,
        silent_seconds=now - member.reported_at,
        rejected_reports=member.rejected_reports,
        notes=member.notes,
    )


def _verifier(fleet: Fleet, member: Member, now: float) -> pb.MemberStatus:
    assert member.kind is Kind.VERIFIER
    status = _member(member, len(member.verifier_facts.sessions), now)
    rate = fleet.rates.get(member.instance)
    status.verifier.CopyFrom(
        pb.VerifierStatus(
            address=member.address,
            tokens_per_second=rate.per_second if rate else 0.0,
            committed_tokens=member.verifier_facts.committed,
            kv_cache_bytes=member.verifier_facts.kv_cache_bytes,
            draining=member.draining,
            dtype=member.dtype,
            vocab_hash=member.vocab_hash,
        )
    )
    return status


def _drafter(
    fleet: Fleet, member: Member, links: list[tuple[Member, LinkFacts]], loads: Counter[str], now: float
) -> pb.MemberStatus:
    status = _member(member, loads[member.instance], now)
    told = member.drafter_facts.seconds_per_token or member.seconds_per_token
    status.drafter.CopyFrom(_drafting(fleet, member.instance, links, told))
    status.drafter.attached_to[:] = member.drafter_facts.attached_to
    return status


def _unregistered_drafter(
    fleet: Fleet, instance: str, links: list[tuple[Member, LinkFacts]], loads: Counter[str]
) -> pb.MemberStatus:
    """A drafter of which only verifiers tell."""
    link = links[0][1]
    status = pb.MemberStatus(
        instance=instance,
        name=link.name,
        model=link.model,
        sessions=loads[instance],
        max_sessions=max(link.max_sessions for _, link in links),
    )
    status.drafter.CopyFrom(_drafting(fleet, instance, links, None))
    status.drafter.attached_to[:] = sorted(verifier.address for verifier, _ in links)
    return status


def _drafting(
    fleet: Fleet, instance: str, links: list[tuple[Member, LinkFacts]], told: float | None
) -> pb.FleetDrafterStatus:
    """``told``: seconds per token, if the drafter said so itself."""
    speeds = [link.seconds_per_token for _, link in links if link.seconds_per_token is not None]
    trips = [link.round_trip for _, link in links if link.round_trip is not None]
    return pb.FleetDrafterStatus(
        seconds_per_token=told or min(speeds, default=0.0),
        round_trip=min(trips, default=None),
        acceptance_rate=_acceptance(fleet, instance, links),
        spans=sum(link.spans for _, link in links),
        stale_spans=sum(link.stale_spans for _, link in links),
        draft_tokens=sum(link.draft_tokens for _, link in links),
        accepted_tokens=sum(link.accepted for _, link in links),
    )


def _acceptance(fleet: Fleet, instance: str, links: list[tuple[Member, LinkFacts]]) -> float | None:
    """The drafter's, of the last seconds."""
    rates = [fleet.link_rates[verifier.instance].of(link.number) for verifier, link in links]
    if drafted := sum(rate for rate, _ in rates):
        return sum(rate for _, rate in rates) / drafted
    # Verifiers that do not tell drafters apart: of sessions for which it drafts alone, where all is its own.
    alone = [session for session in fleet.sessions.values() if session.drafters() == [instance]]
    trends = [session.trend for session in alone if not session.facts.sources]
    total = sum(trend.draft_tokens for trend in trends)
    return sum(trend.accepted for trend in trends) / total if total else None


def _session(session: FleetSession, loads: Counter[str]) -> pb.SessionStatus:
    facts, trend = session.facts, session.trend
    links = session.verifier.verifier_facts.links
    trips = [trip for number in facts.links if number in links and (trip := links[number].round_trip) is not None]
    plan = facts.plan or session.plan_orders.plan
    costs = session.costs(loads)
    return pb.SessionStatus(
        session=facts.name,
        verifier=session.verifier.instance,
        drafters=session.drafters(),
        committed_tokens=facts.committed,
        tokens_per_second=trend.tokens_per_second,
        tokens_per_step=trend.tokens_per_step,
        acceptance_rate=trend.acceptance_rate,
        acceptance_history=trend.history,
        round_trip=min(trips, default=None),
        plan=codec.plan_to_wire(plan) if plan is not None else None,
        expected_speed_up=predict(coarse(costs), plan).speed_up if costs and plan else 1.0,
        sources=[_source(source) for source in facts.sources],
    )


def _source(source: SourceFacts) -> pb.SourceStats:
    return pb.SourceStats(
        source=codec.source_to_wire(source.kind),
        name=source.name,
        model=source.model,
        instance=source.instance,
        draft_tokens=source.draft_tokens,
        accepted_tokens=source.accepted,
    )
