"""Taking verifiers out of service, and back: what was decided, and the orders that see to it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from coordinator.plan_orders import RESEND_SECONDS
from coordinator.registry import DrainDecision, Member, Registry
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import InputError
from transport import codec
from transport.limits import PROTOCOL_VERSION

log = logging.getLogger(__name__)


class DrainDesk:
    """Decisions stand with the member; an order is repeated until reports say that it was carried out."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._ordered: dict[Member, tuple[DrainDecision, float]] = {}

    def decide(self, request: pb.DrainRequest) -> pb.DrainResponse:
        """Raises InputError if the request names no verifier, or several; VersionMismatchError."""
        codec.check_version(request.protocol_version, who="the client")
        if request.undo and request.hand_over:
            raise InputError("hand_over", True, "cannot be undone", remedy="give undo alone")
        member = self._named(request.verifier)
        member.drain = decision = DrainDecision(not request.undo, request.hand_over)
        log.info("%s: %s", member, decision)
        return pb.DrainResponse(
            protocol_version=PROTOCOL_VERSION,
            instance=member.instance,
            name=member.name,
            sessions=len(member.verifier_facts.sessions),
            draining=decision.draining,
        )

    def orders(self, now: float) -> Iterator[tuple[Member, pb.JoinResponse]]:
        """Those that are due at ``now``, in seconds of the fleet's clock."""
        self._ordered = {member: order for member, order in self._ordered.items() if member in self._registry}
        for member in self._registry.verifiers:
            decision = member.drain
            if decision is None:
                continue
            ordered, at = self._ordered.get(member, (None, now - RESEND_SECONDS))
            facts = member.verifier_facts
            done = facts.draining == decision.draining and not (decision.hand_over and facts.sessions)
            if decision != ordered or (not done and now >= at + RESEND_SECONDS):
                self._ordered[member] = (decision, now)
                order = pb.DrainOrder(draining=decision.draining, hand_over=decision.hand_over)
                yield member, pb.JoinResponse(drain=order)

    def _named(self, name: str) -> Member:
        verifiers = self._registry.verifiers
        for field in ("instance", "name", "address"):
            found = [member for member in verifiers if getattr(member, field) == name]
            if len(found) > 1:
                instances = ", ".join(f"{member.instance} at {member.address}" for member in found)
                remedy = f"give the instance or the address: {instances}"
                raise InputError("verifier", name, f"is the {field} of {len(found)} verifiers", remedy=remedy)
            if found:
                return found[0]
        names = ", ".join(sorted(member.name for member in verifiers)) or "none"
        raise InputError("verifier", name, "is no verifier of this fleet", remedy=f"registered are {names}")
