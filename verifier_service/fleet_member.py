"""The verifier as a member of a fleet: what it reports to the coordinator, and how it carries out orders.

Orders change who drafts and how far, never a text. Without the coordinator the verifier places and plans by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import DragomanError
from transport import codec
from transport.generation_codec import source_stats_to_wire
from transport.joining import AddressSource, CoordinatorLink
from transport.limits import PROTOCOL_VERSION
from transport.security import Security
from transport.version import VERSION
from verifier_service.drafter_link import DrafterLink
from verifier_service.open_session import OpenSession
from verifier_service.verifier import Verifier


class VerifierMember:
    """``advertised``: where drafters and clients reach the verifier. ``on_joined``: once per connection. ``security``:
    of the connection to the coordinator; None: as the environment says."""

    def __init__(
        self,
        verifier: Verifier,
        coordinator: AddressSource,
        *,
        instance: str,
        name: str,
        advertised: str,
        security: Security | None = None,
        on_joined: Callable[[pb.Joined], None] = lambda joined: None,
    ) -> None:
        self._verifier = verifier
        engine = verifier.engine
        #: What it joins a fleet with.
        self.registration = pb.Registration(
            protocol_version=PROTOCOL_VERSION,
            instance=instance,
            name=name,
            version=VERSION,
            model=engine.name,
            vocab_size=engine.vocab_size,
            vocab_hash=engine.tokenizer.vocab.content_hash,
            max_sessions=verifier.max_sessions,
            verifier=pb.VerifierKind(address=advertised),
            dtype=engine.dtype_name,
        )
        self._link = CoordinatorLink(
            coordinator=coordinator,
            registration=self.registration,
            report=self.report,
            on_order=self.carry_out,
            on_joined=self._take_in,
            security=security,
        )
        self._on_joined = on_joined

    async def run(self) -> None:
        """Report, and carry out orders, until cancelled, or until the coordinator refuses this verifier."""
        await self._link.run()

    @property
    def refusal(self) -> DragomanError | None:
        """Why the coordinator does not want this verifier; None once it joined."""
        return self._link.refusal

    def _take_in(self, joined: pb.Joined) -> None:
        if joined.HasField("plan_limits"):
            self._verifier.plan_limits = codec.plan_limits_from_wire(joined.plan_limits)
        self._on_joined(joined)

    def report(self) -> pb.JoinRequest:
        verifier = self._verifier
        report = pb.VerifierReport(
            links=[link_report(link) for link in verifier.roster.links],
            sessions=[session_report(opened) for opened in verifier.sessions],
            committed_tokens=verifier.committed_tokens,
            kv_cache_bytes=verifier.engine.kv_cache_bytes,
            draining=verifier.draining,
        )
        return pb.JoinRequest(verifier=report)

    def carry_out(self, order: pb.JoinResponse) -> None:
        """Carry out an order; one for a session that is over is ignored. Raises InputError for a plan out of range."""
        match order.WhichOneof("message"):
            case "placement":
                self._verifier.roster.place(order.placement.session, frozenset(order.placement.links))
            case "plan":
                plan = codec.plan_from_wire(order.plan.plan)
                self._verifier.order_plan(order.plan.session, plan, time.monotonic())
            case "drain":
                self._verifier.drain(order.drain.draining)
                if order.drain.hand_over:
                    self._verifier.hand_over()


def link_report(link: DrafterLink) -> pb.LinkReport:
    return pb.LinkReport(
        link=link.number,
        instance=link.hello.instance,
        name=link.hello.name,
        model=link.hello.model,
        max_sessions=link.hello.max_sessions,
        sessions=len(link.sessions),
        round_trip=link.round_trip.mean,
        seconds_per_token=link.seconds_per_token_alone,
        spans=link.spans,
        stale_spans=link.stale_spans,
        rejected_messages=link.rejected_messages,
        draft_tokens=link.draft_tokens,
        accepted_tokens=link.accepted_tokens,
    )


def session_report(opened: OpenSession) -> pb.SessionReport:
    stats, costs = opened.session.stats, opened.planner.step_costs()
    return pb.SessionReport(
        session=opened.name,
        links=[link.number for link in opened.drafters],
        declined_links=[link.number for link in opened.drafters.declined],
        no_draft=not opened.drafters.open,
        committed_tokens=opened.new_tokens,
        steps=stats.steps,
        draft_tokens=stats.draft_tokens,
        accepted_tokens=stats.accepted_tokens,
        plan=codec.plan_to_wire(opened.session.plan),
        costs=codec.step_costs_to_wire(costs) if costs is not None else None,
        rule=codec.rule_to_wire(opened.session.request.rule),
        sources=[source_stats_to_wire(entry) for entry in opened.drafters.stats(stats)],
    )
