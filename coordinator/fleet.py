"""The fleet as a state machine: registrations, reports and the clock in, orders out. No sockets, no tasks.

``now`` is always the seconds of one steady clock that never goes back. Between two events nothing happens by itself:
whoever drives the fleet calls ``tick`` every ``plan_seconds``, and at once while it is ``urgent``.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from coordinator.config import CoordinatorConfig
from coordinator.draining import DrainDesk
from coordinator.placement import Seat, SessionKey, place
from coordinator.plan_orders import Budget
from coordinator.registry import Kind, Member, Registry, read_registration
from coordinator.reports import LinkFacts, read_drafter_report, read_verifier_report
from coordinator.router import Router
from coordinator.sessions import FleetSession, Knowledge, drafter_of, seat_of
from coordinator.telemetry import LinkRates, Rate
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import SessionError
from transport import codec
from transport.identity import Identity

log = logging.getLogger(__name__)

#: Placement is looked at after so many seconds even if nothing but figures changed.
PLACE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Order:
    """A message for a member."""

    member: Member
    message: pb.JoinResponse


@dataclass(frozen=True, slots=True)
class Dismissal:
    """This registration is over: its stream ends with ``error``."""

    member: Member
    error: SessionError


class Fleet:
    """The members of a fleet, their sessions, and what is to be ordered of them."""

    def __init__(self, config: CoordinatorConfig, now: float) -> None:
        self.config = config
        self.started_at = now
        self.registry = Registry(
            dead_after=config.dead_after, max_members=config.max_members, max_members_each=config.max_members_each
        )
        self.sessions: dict[SessionKey, FleetSession] = {}
        self.rates: dict[str, Rate] = {}  # committed tokens, by verifier
        self.link_rates: dict[str, LinkRates] = {}  # by verifier
        self.knowledge = Knowledge()
        self.router = Router(self.registry, config)
        self.drains = DrainDesk(self.registry)
        self.urgent = False
        self._dismissals: list[Dismissal] = []
        self._place_at = now

    # ---- events -------------------------------------------------------------------------------------------------

    def join(self, registration: pb.Registration, now: float, holder: Identity | None = None) -> Member:
        """A member registers. ``holder``: of the certificate or token that it shows. Raises VersionMismatchError,
        InputError, LimitExceededError, SessionError."""
        member = read_registration(registration, now, holder)
        replaced = self.registry.add_member(member)
        if replaced is not None:
            member.drain = replaced.drain
            self._dismissals.append(Dismissal(replaced, SessionError("the same instance registered again")))
        log.info("%s joined with %s", member, member.model)
        self.urgent = True
        return member

    def leave(self, member: Member, why: str = "left") -> None:
        """A member goes, on purpose or not. Nothing happens if it is not there."""
        if member not in self.registry:
            return
        self.registry.remove(member)
        if member.kind is Kind.VERIFIER:
            for key in [key for key in self.sessions if key.verifier == member.instance]:
                del self.sessions[key]
            self.rates.pop(member.instance, None)
            self.link_rates.pop(member.instance, None)
        log.info("%s %s", member, why)
        self.urgent = True

    def receive(self, member: Member, request: pb.JoinRequest, now: float) -> None:
        """A message after the registration. What cannot be true in it is ignored and counted."""
        if member not in self.registry:
            return
        member.reported_at = now
        match request.WhichOneof("message"), member.kind:
            case "verifier", Kind.VERIFIER:
                facts, problems = read_verifier_report(request.verifier)
                before = member.verifier_facts
                member.verifier_facts = facts
                self.rates.setdefault(member.instance, Rate()).observe_total(facts.committed, now)
                self.link_rates.setdefault(member.instance, LinkRates()).observe_links(facts.links, now)
                if facts.links.keys() != before.links.keys() or facts.sessions.keys() != before.sessions.keys():
                    self.urgent = True
                self._observe_sessions(member, now)
            case "drafter", Kind.DRAFTER:
                member.drafter_facts, problems = read_drafter_report(request.drafter)
                if not member.reports:
                    self.urgent = True
            case "leave", _:
                self.leave(member)
                return
            case _:
                problems = ["a message that is none of its business"]
        member.reports += 1
        if problems:
            level = logging.DEBUG if member.rejected_reports else logging.WARNING
            log.log(level, "%s reports what cannot be, ignored from now on without a word: %s", member, problems[0])
            member.rejected_reports += 1

    def _observe_sessions(self, verifier: Member, now: float) -> None:
        reported = verifier.verifier_facts.sessions
        for key in [key for key in self.sessions if key.verifier == verifier.instance]:
            if key.session not in reported:
                del self.sessions[key]
        loads = self.loads()
        for name, facts in reported.items():
            key = SessionKey(verifier.instance, name)
            if key not in self.sessions:
                self.sessions[key] = FleetSession(verifier=verifier, facts=facts, config=self.config, now=now)
            self.sessions[key].observe_report(verifier, facts, self.knowledge, loads, now)

    # ---- decisions ----------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Order | Dismissal]:
        """What is to be said to whom."""
        for dead in self.registry.silent(now):
            self.leave(dead, f"has been silent for {now - dead.reported_at:.1f} s")
            self._dismissals.append(Dismissal(dead, SessionError("no report came for too long")))
        orders: list[Order | Dismissal] = [*self._dismissals]
        self._dismissals = []
        steered = {key: found for key, found in self.sessions.items() if found.verifier in self.registry}
        orders.extend(self._placements(steered, now))
        orders.extend(self._plans(steered, now))
        orders.extend(self._attachments())
        orders.extend(Order(member, order) for member, order in self.drains.orders(now))
        return orders

    def _placements(self, sessions: dict[SessionKey, FleetSession], now: float) -> Iterator[Order]:
        wanted = {key: session.wanted or () for key, session in sessions.items() if session.placeable}
        if self.urgent or now >= self._place_at:
            self.urgent = False
            self._place_at = now + PLACE_SECONDS
            before, wanted = wanted, self._assign([sessions[key] for key in wanted], now)
            if wanted != before:
                self._place_at = now  # only a few change at once; the others follow in the next round
        for key, seats in wanted.items():
            session = sessions[key]
            if session.verifier.verifier_facts.links:
                links = session.place(seats, now)
                if links is not None:
                    order = pb.PlacementOrder(session=key.session, links=links)
                    yield Order(session.verifier, pb.JoinResponse(placement=order))

    def _assign(self, sessions: list[FleetSession], now: float) -> dict[SessionKey, tuple[Seat, ...]]:
        links = {seat_of(verifier, link): link for verifier, link in self.links()}
        drafters = {seat.drafter for seat in links}
        self.knowledge.credits = {who: credit for who, credit in self.knowledge.credits.items() if who in drafters}

        def speed_up(key: SessionKey, seat: Seat, load: int) -> float:
            return self.sessions[key].speed_up(links[seat], load, self.knowledge, now)

        settings = self.config.placement
        return place(
            [session.applicant(now) for session in sessions],
            self._capacities(),
            speed_up,
            drafters_per_session=settings.drafters_per_session,
            margin=settings.margin,
        )

    def _capacities(self) -> dict[str, int]:
        """Sessions that each drafter takes: what its links say, and not more than its registration says."""
        found: dict[str, int] = {}
        for verifier, link in self.links():
            drafter = drafter_of(verifier, link)
            found[drafter] = max(found.get(drafter, 0), link.max_sessions)
        for member in self.registry.drafters:
            if member.instance in found:
                found[member.instance] = min(found[member.instance], member.max_sessions)
        return found

    def _plans(self, sessions: dict[SessionKey, FleetSession], now: float) -> Iterator[Order]:
        loads = self.loads()
        budget = Budget()
        # Those that have waited longest come first, or the budget would always go to the same few.
        for key, session in sorted(sessions.items(), key=lambda item: item[1].plan_orders.chosen_at):
            if session.placeable:
                plan = session.plan_orders.order(
                    session.costs(loads),
                    steps=session.facts.steps,
                    running=session.facts.plan,
                    now=now,
                    budget=budget,
                )
                if plan is not None:
                    order = pb.PlanOrder(session=key.session, plan=codec.plan_to_wire(plan))
                    yield Order(session.verifier, pb.JoinResponse(plan=order))

    def _attachments(self) -> Iterator[Order]:
        live = {verifier.address for verifier in self.registry.verifiers}
        linked = {(link.instance, verifier.address) for verifier, link in self.links()}
        for drafter in self.registry.drafters:
            attached = set(drafter.drafter_facts.attached_to)
            wanted = live
            if attached - live:
                # Where it has a stream already, it may have dialled the verifier by another name.
                known = attached.union(drafter.attach_order or ())
                wanted = {address for address in live if address in known or (drafter.instance, address) not in linked}
            # A coordinator that was just restarted, or is cut off from a verifier, ends no stream that is open.
            addresses = tuple(sorted(wanted.union(attached)))
            if drafter.reports and addresses != drafter.attach_order:
                drafter.attach_order = addresses
                yield Order(drafter, pb.JoinResponse(attach=pb.AttachOrder(verifiers=addresses)))

    # ---- what is there ------------------------------------------------------------------------------------------

    def links(self) -> Iterator[tuple[Member, LinkFacts]]:
        """All streams of drafters, with their verifiers."""
        for verifier in self.registry.verifiers:
            for link in verifier.verifier_facts.links.values():
                yield verifier, link

    def loads(self) -> Counter[str]:
        """Sessions that each drafter drafts for, at all verifiers together."""
        return Counter(drafter for session in self.sessions.values() for drafter in session.drafters())
