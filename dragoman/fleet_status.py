"""The fleet as a gateway shows it, from what a coordinator or a lone verifier tells. Without addresses and instances:
they are nobody's but the fleet's."""

from __future__ import annotations

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.protocol.status import DrafterStatus, FleetDrafter, FleetStatus, FleetVerifier, VerifierStatus


def fleet_of_verifier(status: VerifierStatus) -> FleetStatus:
    """A verifier without a coordinator, and the drafters that dialled it."""
    return FleetStatus(
        verifiers=(FleetVerifier(name=status.model, model=status.model, sessions=status.sessions),),
        drafters=tuple(_drafter_of_link(drafter) for drafter in status.drafters),
    )


def _drafter_of_link(drafter: DrafterStatus) -> FleetDrafter:
    return FleetDrafter(
        name=drafter.name,
        model=drafter.model,
        sessions=drafter.sessions,
        verifiers=(0,),
        round_trip=drafter.round_trip or None,
        seconds_per_token=drafter.seconds_per_token or None,
        acceptance_rate=drafter.accepted_tokens / drafter.draft_tokens if drafter.draft_tokens else None,
    )


def fleet_of_status(status: pb.StatusResponse) -> FleetStatus:
    """What a coordinator sees."""
    verifiers = [member for member in status.members if member.HasField("verifier")]
    places = {member.verifier.address: place for place, member in enumerate(verifiers)}
    return FleetStatus(
        verifiers=tuple(_verifier(member) for member in verifiers),
        drafters=tuple(_drafter(member, places) for member in status.members if member.HasField("drafter")),
    )


def _verifier(member: pb.MemberStatus) -> FleetVerifier:
    return FleetVerifier(
        name=member.name,
        model=member.model,
        sessions=member.sessions,
        max_sessions=member.max_sessions or None,
        tokens_per_second=member.verifier.tokens_per_second,
        draining=member.verifier.draining,
    )


def _drafter(member: pb.MemberStatus, places: dict[str, int]) -> FleetDrafter:
    told = member.drafter
    return FleetDrafter(
        name=member.name,
        model=member.model,
        sessions=member.sessions,
        verifiers=tuple(sorted(places[address] for address in told.attached_to if address in places)),
        max_sessions=member.max_sessions or None,
        round_trip=told.round_trip if told.HasField("round_trip") else None,
        seconds_per_token=told.seconds_per_token or None,
        acceptance_rate=told.acceptance_rate if told.HasField("acceptance_rate") else None,
    )
