"""The fleet drawn for a terminal of any width: members, sessions, and how well they guess."""

from __future__ import annotations

import bisect
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.text import Text

from dragoman.record_table import record_table
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.plural import count_of
from transport.address import Address
from transport.durations import show_duration

_BARS = "▁▂▃▄▅▆▇█"
#: Silence from which on a member is shown as missing, in seconds.
_MISSING = 1.5
#: Columns from which on it is shown who drafted how many tokens in a session.
_ROOM = 120
_LEGEND = (
    "plan 8/24 ×2 w: 8 draft tokens a step, drafter up to 24 ahead, 2 alternatives, w: steps wait for drafts; "
    "gain: expected, over the target alone"
)


def fleet_view(
    status: pb.StatusResponse | None, *, width: int, height: int | None = None, away: Text | None = None
) -> RenderableType:
    """All of it. ``height``: lines to fit into, at the price of sessions, then of members; it is said how many are
    missing. ``away``: what to say if ``status`` is old, or None."""
    head: list[RenderableType] = [away] if away is not None else []
    if status is None:
        return Group(*head)
    verifiers = [member for member in status.members if member.HasField("verifier")]
    drafters = [member for member in status.members if member.HasField("drafter")]
    head.append(_headline(status, len(verifiers), len(drafters)))
    if not status.members:
        head.append(Text("\nNobody has joined yet: start `dragoman verifier` and `dragoman drafter`.", style="dim"))
    head += [Text(f"{member.name}: {note}", style="yellow") for member in status.members for note in member.notes]
    parts = [
        _Part("verifier", len(verifiers), lambda count: _verifiers(verifiers[:count], width)),
        _Part("drafter", len(drafters), lambda count: _drafters(drafters[:count], width)),
        _Part("session", len(status.sessions), lambda count: _sessions(status, count, width)),
    ]

    def drawn(shown: Sequence[int], legend: bool = False) -> RenderableType:
        lines = [*head, *(line for part, count in zip(parts, shown, strict=True) for line in part.lines(count))]
        if legend:
            lines += ["", Text(_LEGEND, style="dim")]
        return Group(*lines)

    shown = [part.count for part in parts]
    whole = drawn(shown, legend=bool(status.sessions))
    if height is None or _height(whole, width) <= height:
        return whole
    for index in reversed(range(len(parts))):  # sessions are the first to go, then drafters
        least = min(1, parts[index].count)
        fitting = range(least, parts[index].count + 1)
        # The last count that fits, or the least.
        found = bisect.bisect_right(
            fitting, height, key=lambda count: _height(drawn([*shown[:index], count, *shown[index + 1 :]]), width)
        )
        shown[index] = max(found - 1 + least, least)
        if _height(drawn(shown), width) <= height:
            break
    return drawn(shown)


@dataclass(frozen=True, slots=True)
class _Part:
    """One kind of record. ``draw``: the first so many of them."""

    noun: str
    count: int
    draw: Callable[[int], RenderableType]

    def lines(self, shown: int) -> list[RenderableType]:
        if not self.count:
            return []
        missing = self.count - shown
        more = [Text(f"  ... and {missing} more {self.noun}{'s' * (missing > 1)}", style="dim")] if missing else []
        return ["", self.draw(shown), *more]


def _height(view: RenderableType, width: int) -> int:
    """Lines that it takes."""
    console = Console(width=width, file=io.StringIO(), legacy_windows=False)
    return len(console.render_lines(view, console.options, pad=False))


def away_line(coordinator: Address, seconds: float) -> Text:
    return Text(
        f"no coordinator answers at {coordinator} for {show_age(seconds)}; trying again. "
        "Verifiers and drafters go on without it.",
        style="bold red",
    )


def sparkline(values: Sequence[float], width: int) -> str:
    """The last ``width`` values, each in 0..1, as bars; what is no number is a gap."""

    def bar(value: float) -> str:
        return _BARS[int(min(max(value * len(_BARS), 0), len(_BARS) - 1))] if not math.isnan(value) else " "

    return "".join(bar(value) for value in values[-width:])


def show_plan(plan: pb.SpeculationPlan) -> str:
    """Width/lookahead, ×alternatives, w for one that waits."""
    if not plan.width:
        return "off"
    more = f" ×{plan.alternatives}" if plan.alternatives else ""
    return f"{plan.width}/{plan.lookahead}{more}{' w' if plan.patience else ''}"


def show_age(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _headline(status: pb.StatusResponse, verifiers: int, drafters: int) -> Text:
    speed = sum(member.verifier.tokens_per_second for member in status.members)
    parts = [
        count_of(verifiers, "verifier"),
        count_of(drafters, "drafter"),
        count_of(len(status.sessions), "session"),
        f"{speed:.1f} tokens/s",
        f"up {show_age(status.uptime_seconds)}",
    ]
    return Text.assemble(("Fleet", "bold"), "  ", " · ".join(parts))


def _verifiers(members: Iterable[pb.MemberStatus], width: int) -> RenderableType:
    rows = [
        (
            _name(member),
            member.model,
            member.verifier.address,
            f"{member.sessions}/{member.max_sessions}",
            f"{member.verifier.tokens_per_second:.1f}",
            str(member.verifier.committed_tokens),
            f"{member.verifier.kv_cache_bytes / 2**20:.0f} MiB",
        )
        for member in members
    ]
    return record_table(width, ("verifier", "model", "address"), ("sessions", "tokens/s", "tokens", "KV"), rows)


def _drafters(members: Iterable[pb.MemberStatus], width: int) -> RenderableType:
    rows = [
        (
            _name(member),
            member.model,
            f"{member.sessions}/{member.max_sessions}",
            show_duration(member.drafter.seconds_per_token) if member.drafter.seconds_per_token else "-",
            show_duration(member.drafter.round_trip) if member.drafter.HasField("round_trip") else "-",
            _accepted(member.drafter),
        )
        for member in members
    ]
    return record_table(width, ("drafter", "model"), ("sessions", "per token", "round trip", "accepted"), rows)


def _accepted(drafter: pb.FleetDrafterStatus) -> str:
    """The rate of the last seconds, and the counts since it came."""
    rate = [f"{drafter.acceptance_rate:.0%}"] if drafter.HasField("acceptance_rate") else []
    counts = [f"{drafter.accepted_tokens}/{drafter.draft_tokens}"] if drafter.draft_tokens else []
    return ", ".join(rate + counts) or "-"


def _name(member: pb.MemberStatus) -> Text:
    name = Text(member.name)
    if member.silent_seconds > _MISSING:
        name = Text(f"{member.name} (silent for {show_age(member.silent_seconds)})", style="yellow")
    if member.verifier.draining:
        name.append(" (draining)", style="yellow")
    if member.rejected_reports:
        name.append(f" !{member.rejected_reports}", style="red")
    return name


def _sources(sessions: Iterable[pb.SessionStatus], width: int) -> dict[pb.DraftSource, str]:
    """Who drafted in any of them, with the headings of their columns; none where there is no room for these."""
    drafted = {source.source for session in sessions for source in session.sources if source.draft_tokens}
    headings = {
        pb.DRAFT_SOURCE_DRAFTER: "drafted",
        pb.DRAFT_SOURCE_PREDICTION: "predicted",
        pb.DRAFT_SOURCE_LOOKUP: "looked up",
        pb.DRAFT_SOURCE_RECYCLED: "recycled",
        pb.DRAFT_SOURCE_REPLAY: "replayed",
    }
    return {source: heading for source, heading in headings.items() if source in drafted and width >= _ROOM}


def _counts(session: pb.SessionStatus, source: pb.DraftSource) -> str:
    told = [entry for entry in session.sources if entry.source == source]
    draft_tokens = sum(entry.draft_tokens for entry in told)
    return f"{sum(entry.accepted_tokens for entry in told)}/{draft_tokens}" if draft_tokens else "-"


def _sessions(status: pb.StatusResponse, count: int, width: int) -> RenderableType:
    names = {member.instance: member.name for member in status.members}
    several = sum(member.HasField("verifier") for member in status.members) > 1
    sources = _sources(status.sessions[:count], width)
    bars = 6 if width < 90 else 12 if width < (_ROOM + 20 if sources else 120) else 24
    rows: list[tuple[str | Text, ...]] = []
    for session in status.sessions[:count]:
        rate = f"{session.acceptance_rate:.0%}" if session.HasField("acceptance_rate") else "-"
        rows.append(
            (
                session.session[:8],  # ids are random: their beginning tells them apart
                *([names.get(session.verifier, session.verifier)] if several else []),
                ", ".join(names.get(drafter, drafter) for drafter in session.drafters) or Text("alone", style="dim"),
                str(session.committed_tokens),
                f"{session.tokens_per_second:.1f}",
                f"{session.tokens_per_step:.2f}",
                f"{sparkline(session.acceptance_history, bars)} {rate:>4}",
                *(_counts(session, source) for source in sources),
                show_duration(session.round_trip).replace(" ", "") if session.HasField("round_trip") else "-",
                show_plan(session.plan) if session.drafters else "-",
                f"{session.expected_speed_up:.2f}×",
            )
        )
    words = ("session", "verifier", "drafter") if several else ("session", "drafter")
    figures = ("tokens", "/s", "/step", "accepted", *sources.values(), "rtt", "plan", "gain")
    return record_table(width, words, figures, rows)
