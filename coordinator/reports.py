"""What verifiers and drafters report, checked: from the wire to plain values.

Nothing here raises. A part that cannot be true (NaN, negative, absurd, a link that does not exist) is left out, and
said so in ``problems``; what remains of the report is used. Times in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import Message

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import InputError
from speculation.planning.cost_model import StepCosts
from speculation.planning.fits import LONGEST_SECONDS
from speculation.planning.step_times import LEAST_ALONE_SHARE
from speculation.plural import count_of
from speculation.protocol.messages import SpeculationPlan
from speculation.source import SourceKind
from transport import codec
from transport.address import Address

#: Beyond these no figure is believed: counts, seconds, entries of one report, characters of a name.
MOST: Final = 10**15
ENTRIES: Final = 4096
NAME_LENGTH: Final = 200
_POSITIONS: Final = 64
_SOURCES: Final = 16


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """A drafter's stream, as its verifier sees it. ``seconds_per_token`` is the drafter's own word; None: not known."""

    number: int
    instance: str
    name: str
    model: str
    max_sessions: int
    round_trip: float | None
    seconds_per_token: float | None
    spans: int = 0
    stale_spans: int = 0
    rejected_messages: int = 0
    draft_tokens: int = 0
    accepted: int = 0


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """Draft tokens of a session by who guessed them. ``name``, ``model`` and ``instance`` are those of a drafter."""

    kind: SourceKind
    name: str
    model: str
    instance: str
    draft_tokens: int
    accepted: int


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """A session, with totals since it began. ``costs``, ``plan``: None if not known.

    ``draft_tokens``, ``accepted``: those of drafters; of all sources where the verifier does not tell them apart.
    """

    name: str
    links: tuple[int, ...]
    declined: frozenset[int] = frozenset()
    no_draft: bool = False
    committed: int = 0
    steps: int = 0
    draft_tokens: int = 0
    accepted: int = 0
    plan: SpeculationPlan | None = None
    costs: StepCosts | None = None
    sources: tuple[SourceFacts, ...] = ()


@dataclass(frozen=True, slots=True)
class VerifierFacts:
    links: dict[int, LinkFacts]
    sessions: dict[str, SessionFacts]
    committed: int = 0
    kv_cache_bytes: int = 0
    draining: bool = False


@dataclass(frozen=True, slots=True)
class DrafterFacts:
    sessions: int = 0
    seconds_per_token: float | None = None
    attached_to: tuple[str, ...] = ()


def read_verifier_report(report: pb.VerifierReport) -> tuple[VerifierFacts, list[str]]:
    """The facts, and what was wrong with the rest."""
    problems: list[str] = []
    links: dict[int, LinkFacts] = {}
    for link in report.links[:ENTRIES]:
        if link.link in links:
            problems.append(f"two links of number {link.link}")
        elif wrong := _wrong_link(link):
            problems.append(f"link {link.link}: {wrong}")
        else:
            links[link.link] = _link(link, problems)
    sessions: dict[str, SessionFacts] = {}
    for session in report.sessions[:ENTRIES]:
        if not session.session or len(session.session) > NAME_LENGTH or session.session in sessions:
            problems.append(f"session {session.session[:NAME_LENGTH]!r} has no name of its own")
        elif wrong := _wrong_session(session):
            problems.append(f"session {session.session!r}: {wrong}")
        else:
            sessions[session.session] = _session(session, links, problems)
    if len(report.links) > ENTRIES or len(report.sessions) > ENTRIES:
        problems.append(f"more than {ENTRIES} entries")
    if wrong := _too_much(report, ("committed_tokens", "kv_cache_bytes")):
        problems.append(wrong)
    return (
        VerifierFacts(
            links=links,
            sessions=sessions,
            committed=min(report.committed_tokens, MOST),
            kv_cache_bytes=min(report.kv_cache_bytes, MOST),
            draining=report.draining,
        ),
        problems,
    )


def read_drafter_report(report: pb.DrafterReport) -> tuple[DrafterFacts, list[str]]:
    """The facts, and what was wrong with the rest."""
    problems: list[str] = []
    addresses = []
    for text in report.attached_to[:ENTRIES]:
        try:
            addresses.append(str(Address.parse(text[:NAME_LENGTH], field="attached_to")))
        except InputError as error:
            problems.append(error.message)
    speed = believable_seconds(report.seconds_per_token)
    if speed is None:
        problems.append(f"seconds_per_token={report.seconds_per_token}")
    return DrafterFacts(min(report.sessions, ENTRIES), speed or None, tuple(sorted(set(addresses)))), problems


def believable_seconds(value: float) -> float | None:
    """The value if a measurement can have it."""
    return value if math.isfinite(value) and 0 <= value <= LONGEST_SECONDS else None


def _link(link: pb.LinkReport, problems: list[str]) -> LinkFacts:
    figures: dict[str, float | None] = {}
    for name in ("round_trip", "seconds_per_token"):
        figures[name] = believable_seconds(getattr(link, name)) if link.HasField(name) else None
        if link.HasField(name) and figures[name] is None:
            problems.append(f"link {link.link}: {name}={getattr(link, name)}")
    return LinkFacts(
        number=link.link,
        instance=link.instance,
        name=link.name,
        model=link.model,
        max_sessions=link.max_sessions,
        round_trip=figures["round_trip"],
        seconds_per_token=figures["seconds_per_token"] or None,  # 0 is what a drafter says that does not know
        spans=link.spans,
        stale_spans=link.stale_spans,
        rejected_messages=link.rejected_messages,
        draft_tokens=link.draft_tokens,
        accepted=link.accepted_tokens,
    )


def _session(session: pb.SessionReport, links: dict[int, LinkFacts], problems: list[str]) -> SessionFacts:
    known = tuple(sorted({number for number in session.links if number in links}))
    if len(known) < len(session.links):
        problems.append(f"session {session.session!r}: links that do not exist, or twice the same")
    plan = None
    if session.HasField("plan"):
        try:
            plan = codec.plan_from_wire(session.plan)
        except InputError as error:
            problems.append(f"session {session.session!r}: plan.{error.message}")
    costs = _costs(session.costs) if session.HasField("costs") else None
    if session.HasField("costs") and costs is None:
        problems.append(f"session {session.session!r}: costs that cannot be")
    sources = _sources(session, problems)
    drafters = [source for source in sources if source.kind is SourceKind.DRAFTER]
    return SessionFacts(
        name=session.session,
        links=known,
        declined=frozenset(session.declined_links[:ENTRIES]),
        no_draft=session.no_draft,
        committed=session.committed_tokens,
        steps=session.steps,
        draft_tokens=sum(source.draft_tokens for source in drafters) if sources else session.draft_tokens,
        accepted=sum(source.accepted for source in drafters) if sources else session.accepted_tokens,
        plan=plan,
        costs=costs,
        sources=sources,
    )


def _sources(session: pb.SessionReport, problems: list[str]) -> tuple[SourceFacts, ...]:
    found = []
    for source in session.sources[:_SOURCES]:
        kind = codec.source_from_wire(source.source)
        if wrong := _wrong_source(source):
            problems.append(f"session {session.session!r}: a source of drafts with {wrong}")
        elif kind is not None:  # else it is a newer verifier's
            found.append(
                SourceFacts(
                    kind=kind,
                    name=source.name,
                    model=source.model,
                    instance=source.instance,
                    draft_tokens=source.draft_tokens,
                    accepted=source.accepted_tokens,
                )
            )
    return tuple(found)


def _wrong_source(source: pb.SourceStats) -> str:
    return _too_much(source, ("draft_tokens", "accepted_tokens")) or _too_many(source) or _too_long(source)


def _wrong_link(link: pb.LinkReport) -> str:
    counts = ("sessions", "spans", "stale_spans", "rejected_messages", "draft_tokens", "accepted_tokens")
    return _too_much(link, counts) or _too_many(link) or _too_long(link)


def _wrong_session(session: pb.SessionReport) -> str:
    if wrong := _too_much(session, ("committed_tokens", "steps", "draft_tokens", "accepted_tokens")):
        return wrong
    return _too_many(session)


def _too_many(counts: pb.SessionReport | pb.SourceStats | pb.LinkReport) -> str:
    if counts.accepted_tokens > counts.draft_tokens:
        return f"{counts.accepted_tokens} of {count_of(counts.draft_tokens, 'draft token')} accepted"
    return ""


def _costs(costs: pb.StepCosts) -> StepCosts | None:
    step, per_token = believable_seconds(costs.step), believable_seconds(costs.step_per_token)
    rates = tuple(costs.acceptance[:_POSITIONS])
    if not step or per_token is None or not rates or not all(0 <= rate <= 1 for rate in rates):
        return None
    return StepCosts(
        step=step,
        step_per_token=per_token,
        acceptance=rates,
        drafted_steps=min(costs.drafted_steps, MOST),
        alone_share=costs.alone_share if LEAST_ALONE_SHARE <= costs.alone_share <= 1 else 1.0,
    )


def _too_much(message: Message, names: Iterable[str]) -> str:
    return next((f"{name}={value}" for name in names if (value := getattr(message, name)) > MOST), "")


def _too_long(drafter: pb.LinkReport | pb.SourceStats) -> str:
    names = (drafter.instance, drafter.name, drafter.model)
    return "a name that is too long" if any(len(name) > NAME_LENGTH for name in names) else ""
