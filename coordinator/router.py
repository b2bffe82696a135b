"""Where clients are sent: the registry's verifiers of a model, ranked by prefix and load.

Reports lag, so what was routed in the last moments counts as load beside what is reported.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Final

from coordinator.config import CoordinatorConfig
from coordinator.registry import Member, Registry
from coordinator.routing import RoutedVerifier, ranked
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import InputError, LimitExceededError, NoVerifierError
from speculation.plural import count_of
from transport import codec
from transport.limits import PROTOCOL_VERSION

#: Candidates told of at most.
CANDIDATES: Final = 32
#: Seconds that a client takes to open its session, at most; then the next report tells of it.
OPENING_SECONDS: Final = 0.25
#: Routed sessions remembered, at most.
_REMEMBERED: Final = 10_000


class Router:
    """Says which verifiers a prompt may go to, the best first. ``now``: seconds of the fleet's clock."""

    def __init__(self, registry: Registry, config: CoordinatorConfig) -> None:
        self._registry = registry
        self._bound = config.routing.load_bound
        self._fresh_seconds = OPENING_SECONDS + config.report_seconds
        self._routed: deque[tuple[float, str]] = deque(maxlen=_REMEMBERED)

    def route(self, request: pb.RouteRequest, now: float) -> pb.RouteResponse:
        """Verifiers for one more session, best first; it counts as the first one's.

        Raises NoVerifierError if nobody serves what is asked for, LimitExceededError if all who do are full or
        draining, InputError if no model is named and there are several, VersionMismatchError.
        """
        codec.check_version(request.protocol_version, who="the client")
        serving = self._serving(request)
        excluded = set(request.exclude)
        left = [member for member in serving if member.instance not in excluded]
        if not left:
            raise NoVerifierError(
                f"the request excludes all that serve {serving[0].model}: {count_of(len(serving), 'verifier')}"
            )
        while self._routed and self._routed[0][0] <= now - self._fresh_seconds:
            self._routed.popleft()
        # Two of one address are an old process and its successor: the later one is there.
        homes = {member.address: member for member in left if not member.draining}
        on_the_way = Counter(instance for _, instance in self._routed)
        replicas = [
            RoutedVerifier(
                address, len(member.verifier_facts.sessions) + on_the_way[member.instance], member.max_sessions
            )
            for address, member in homes.items()
        ]
        best = [homes[replica.key] for replica in ranked(request.prefix_digest, replicas, bound=self._bound)]
        # What is only on its way may never come, and whoever asks a thousand times leaves room for others.
        crowded = sorted((replica for replica in replicas if replica.full), key=lambda replica: replica.load)
        best += [homes[replica.key] for replica in crowded if not homes[replica.key].full]
        if not best:
            draining = sum(member.draining for member in left)
            raise LimitExceededError(
                f"no room for another text of {left[0].model} at {count_of(len(left), 'verifier')}: "
                f"{draining} draining, {len(left) - draining} full",
                remedy="try again later, or start another",
            )
        self._routed.append((now, best[0].instance))
        return pb.RouteResponse(
            protocol_version=PROTOCOL_VERSION, candidates=[_candidate(member) for member in best[:CANDIDATES]]
        )

    def _serving(self, request: pb.RouteRequest) -> list[Member]:
        """Verifiers that are what is asked for, at least one."""
        verifiers = self._registry.verifiers
        models = sorted({member.model for member in verifiers})
        if not request.model and len(models) > 1:
            raise InputError("model", "", "is not given, and the fleet serves several", remedy=_one_of(models))
        wanted = request.model or (models[0] if models else "")
        found = [
            member
            for member in verifiers
            if member.model == wanted
            and request.vocab_hash in ("", member.vocab_hash)
            and request.dtype in ("", member.dtype)
        ]
        if found:
            return found
        if not verifiers:
            raise NoVerifierError(
                "no verifier is registered with the coordinator", remedy="start `dragoman verifier --coordinator ...`"
            )
        registered = ", ".join(sorted({f"{m.model} ({m.dtype or 'unknown dtype'})" for m in verifiers}))
        asked = f"{wanted} in {request.dtype}" if request.dtype else wanted
        raise NoVerifierError(f"no verifier serves {asked}", remedy=f"registered are {registered}")


def _one_of(models: list[str]) -> str:
    return f"name one of {', '.join(models)}"


def _candidate(member: Member) -> pb.RouteCandidate:
    return pb.RouteCandidate(
        instance=member.instance,
        name=member.name,
        address=member.address,
        model=member.model,
        vocab_hash=member.vocab_hash,
        dtype=member.dtype,
    )
