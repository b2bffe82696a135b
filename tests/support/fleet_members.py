"""Verifiers and drafters as the coordinator sees them: made-up figures, orders obeyed, no models and no sockets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from coordinator.config import CoordinatorConfig
from coordinator.fleet import Dismissal, Fleet
from coordinator.registry import Member
from protos.dragoman.v1 import dragoman_pb2 as pb
from transport.limits import PROTOCOL_VERSION

STEP = 0.025


def plan(width: int = 8, lookahead: int = 8) -> pb.SpeculationPlan:
    """One on the wire, with the fields that no test asks about as they mostly are."""
    return pb.SpeculationPlan(width=width, lookahead=lookahead, stop_threshold=0.3, span_tokens=4)


@dataclass
class FakeSession:
    """Of each step's draft tokens the share ``accepts`` agrees, if the drafter keeps up; ``links`` draft for it."""

    accepts: float = 0.7
    links: list[int] = field(default_factory=list)
    declined: list[int] = field(default_factory=list)
    no_draft: bool = False
    plan: pb.SpeculationPlan = field(default_factory=plan)
    committed: int = 0
    steps: int = 0
    drafted: int = 0
    accepted: int = 0
    drafted_steps: int = 0

    def advance(self, steps: int, idle_links: set[int]) -> None:
        """Takes so many steps, with drafts if a link of its own drafts; figures are means, not draws."""
        self.steps += steps
        self.committed += steps
        if set(self.links) - idle_links and self.plan.width:
            self.drafted += steps * self.plan.width
            # Agreement ends at the first miss.
            mean = sum(self.accepts**n for n in range(1, self.plan.width + 1))
            self.accepted += round(steps * mean)
            self.committed += round(steps * mean)
            self.drafted_steps += steps

    def report(self, name: str) -> pb.SessionReport:
        """The session's part of its verifier's report."""
        rates = [self.accepts if self.drafted_steps else 0.6] * 4
        costs = pb.StepCosts(step=STEP, step_per_token=STEP / 100, acceptance=rates, drafted_steps=self.drafted_steps)
        return pb.SessionReport(
            session=name,
            links=self.links,
            declined_links=self.declined,
            no_draft=self.no_draft,
            committed_tokens=self.committed,
            steps=self.steps,
            draft_tokens=self.drafted,
            accepted_tokens=self.accepted,
            plan=self.plan,
            costs=costs if self.steps else None,
        )


@dataclass
class FakeVerifier:
    """``idle_links``: of drafters that draft nothing, whatever they say."""

    instance: str = "v1"
    address: str = "10.0.0.1:50061"
    sessions: dict[str, FakeSession] = field(default_factory=dict)
    links: dict[int, pb.LinkReport] = field(default_factory=dict)
    idle_links: set[int] = field(default_factory=set)
    orders: list[pb.JoinResponse] = field(default_factory=list)
    obeys: bool = True
    model: str = "target"
    vocab_hash: str = "hash"
    dtype: str = "float32"
    max_sessions: int = 64
    draining: bool = False

    def registration(self) -> pb.Registration:
        """What it joins with."""
        return pb.Registration(
            protocol_version=PROTOCOL_VERSION,
            instance=self.instance,
            name=f"name of {self.instance}",
            model=self.model,
            vocab_hash=self.vocab_hash,
            dtype=self.dtype,
            max_sessions=self.max_sessions,
            verifier=pb.VerifierKind(address=self.address),
        )

    def link(self, number: int, drafter: str, *, token: float = 0.003, trip: float = 0.005, room: int = 4) -> None:
        """A drafter dialled in: the link under this number, with figures that were measured at once."""
        self.links[number] = pb.LinkReport(
            link=number,
            instance=drafter,
            name=f"name of {drafter}",
            model="drafter",
            max_sessions=room,
            round_trip=trip,
            seconds_per_token=token,
        )

    def advance(self, seconds: float) -> None:
        """All sessions step for so long."""
        for session in self.sessions.values():
            session.advance(round(seconds / STEP), self.idle_links)

    def report(self) -> pb.JoinRequest:
        """What it would report now."""
        report = pb.VerifierReport(
            links=self.links.values(),
            sessions=[session.report(name) for name, session in self.sessions.items()],
            committed_tokens=sum(session.committed for session in self.sessions.values()),
            draining=self.draining,
        )
        return pb.JoinRequest(verifier=report)

    def carry_out(self, message: pb.JoinResponse) -> None:
        """Keeps the order, and does it if it ``obeys``."""
        self.orders.append(message)
        if not self.obeys:
            return
        if message.HasField("placement") and message.placement.session in self.sessions:
            self.sessions[message.placement.session].links = [n for n in message.placement.links if n in self.links]
        if message.HasField("plan") and message.plan.session in self.sessions:
            self.sessions[message.plan.session].plan = message.plan.plan

        if message.HasField("drain"):
            self.draining = message.drain.draining
            if message.drain.hand_over:
                self.sessions.clear()

    def links_of(self, session: str) -> list[int]:
        """The links that draft for the session."""
        return self.sessions[session].links


def verifier(*sessions: str, instance: str = "v1", **fields: Any) -> FakeVerifier:
    """One with these sessions. ``fields``: of ``FakeVerifier``."""
    return FakeVerifier(instance, sessions={name: FakeSession() for name in sessions}, **fields)


def good_report() -> pb.VerifierReport:
    """One in which every figure can be true, for tests that make one of them wrong."""
    target = verifier("s")
    target.link(1, "d1")
    target.sessions["s"] = FakeSession(links=[1], steps=10, committed=20, drafted=80, accepted=10, drafted_steps=10)
    return target.report().verifier


@dataclass
class FakeDrafter:
    """A drafter that drafts by itself, says how fast it is, and attaches to whomever it is told to."""

    instance: str = "d1"
    token: float = 0.003
    max_sessions: int = 4
    attached_to: list[str] = field(default_factory=list)
    orders: list[pb.JoinResponse] = field(default_factory=list)

    def registration(self) -> pb.Registration:
        """What it joins with."""
        return pb.Registration(
            protocol_version=PROTOCOL_VERSION,
            instance=self.instance,
            name=f"name of {self.instance}",
            model="drafter",
            max_sessions=self.max_sessions,
            drafter=pb.DrafterKind(seconds_per_token=self.token),
        )

    def advance(self, seconds: float) -> None:
        """It drafts by itself."""

    def report(self) -> pb.JoinRequest:
        """What it would report now."""
        report = pb.DrafterReport(seconds_per_token=self.token, attached_to=self.attached_to)
        return pb.JoinRequest(drafter=report)

    def carry_out(self, message: pb.JoinResponse) -> None:
        """Keeps the order, and attaches if it is one to attach."""
        self.orders.append(message)
        if message.HasField("attach"):
            self.attached_to = list(message.attach.verifiers)


class FleetDriver:
    """A fleet and its members on one made-up clock: they report, the fleet ticks, they obey."""

    def __init__(self, *members: FakeVerifier | FakeDrafter, config: CoordinatorConfig | None = None) -> None:
        self.now = 1000.0
        self.fleet = Fleet(config or CoordinatorConfig(), self.now)
        self.members: dict[Member, FakeVerifier | FakeDrafter] = {}
        self.dismissed: list[Dismissal] = []
        for member in members:
            self.join(member)

    def join(self, member: FakeVerifier | FakeDrafter) -> Member:
        """A member joins now, and takes part from now on."""
        joined = self.fleet.join(member.registration(), self.now)
        self.members[joined] = member
        return joined

    def silence(self, member: FakeVerifier | FakeDrafter) -> None:
        """The member says nothing any more, not even goodbye."""
        self.members = {joined: other for joined, other in self.members.items() if other is not member}

    def tick(self) -> None:
        """The fleet ticks once; its orders are carried out, and its dismissals kept."""
        for order in self.fleet.tick(self.now):
            if isinstance(order, Dismissal):
                self.dismissed.append(order)
            elif order.member in self.members:
                self.members[order.member].carry_out(order.message)

    def run(self, seconds: float) -> None:
        """So many seconds go by, in quarters: everybody works, reports and obeys."""
        for _ in range(round(seconds / 0.25)):
            self.now += 0.25
            for joined, member in list(self.members.items()):
                member.advance(0.25)
                self.fleet.receive(joined, member.report(), self.now)
            self.tick()
