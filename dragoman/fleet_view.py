"""The fleet drawn for a terminal of any width: members, sessions, and how well they guess."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dragoman.durations import show_duration
from protos.dragoman.v1 import dragoman_pb2 as pb
from protos.transport import Address

_BARS = "▁▂▃▄▅▆▇█"
#: Silence from which on a member is shown as missing, in seconds.
_MISSING = 1.5
#: Rows that anything but sessions takes, beside the rows of members.
_FURNITURE = 16
_LEGEND = "plan 8/24 ×2: 8 draft tokens a step, drafter up to 24 ahead, 2 alternatives; gain: over the target alone"


def fleet_view(
    status: pb.StatusResponse | None, *, width: int, height: int | None = None, away: Text | None = None
) -> RenderableType:
    """All of it. ``height``: rows to fit into. ``away``: what to say if ``status`` is old, or None."""
    lines: list[RenderableType] = [away] if away is not None else []
    if status is None:
        return Group(*lines)
    members = list(status.members)
    verifiers = [member for member in members if member.HasField("verifier")]
    drafters = [member for member in members if member.HasField("drafter")]
    lines.append(_headline(status, len(verifiers), len(drafters)))
    if verifiers:
        lines.append(_verifiers(verifiers))
    if drafters:
        lines.append(_drafters(drafters))
    if not members:
        lines.append(Text("\nNobody has joined yet: start `dragoman verifier` and `dragoman drafter`.", style="dim"))
    sessions = list(status.sessions)
    if sessions:
        rows = len(sessions) if height is None else max(1, height - len(members) - _FURNITURE)
        lines.append(_sessions(sessions[:rows], members, width))
        if len(sessions) > rows:
            lines.append(Text(f"  ... and {len(sessions) - rows} more sessions", style="dim"))
        lines.append(Text(_LEGEND, style="dim"))
    return Group(*lines)


def away_line(coordinator: Address, seconds: float) -> Text:
    return Text(
        f"no coordinator answers at {coordinator} for {show_age(seconds)}; trying again. "
        "Verifiers and drafters go on without it.",
        style="bold red",
    )


def sparkline(values: Sequence[float], width: int) -> str:
    """The last ``width`` values, each in 0..1, as bars."""
    return "".join(_BARS[min(max(int(value * len(_BARS)), 0), len(_BARS) - 1)] for value in values[-width:])


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
        _count(verifiers, "verifier"),
        _count(drafters, "drafter"),
        _count(len(status.sessions), "session"),
        f"{speed:.1f} tokens/s",
        f"up {show_age(status.uptime_seconds)}",
    ]
    return Text.assemble(("Fleet", "bold"), "  ", " · ".join(parts))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _table(*columns: str, texts: int) -> Table:
    """The first ``texts`` columns hold words, which may be cut; the others figures, which may not."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for index, column in enumerate(columns):
        if index < texts:
            table.add_column(column, overflow="ellipsis", no_wrap=True, min_width=6)
        else:
            table.add_column(column, justify="right", no_wrap=True)
    return table


def _verifiers(members: Iterable[pb.MemberStatus]) -> Table:
    table = _table("verifier", "model", "address", "sessions", "tokens/s", "tokens", "KV cache", texts=3)
    for member in members:
        verifier = member.verifier
        table.add_row(
            _name(member),
            member.model,
            verifier.address,
            f"{member.sessions}/{member.max_sessions}",
            f"{verifier.tokens_per_second:.1f}",
            str(verifier.committed_tokens),
            f"{verifier.kv_cache_bytes / 2**20:.0f} MiB",
        )
    return table


def _drafters(members: Iterable[pb.MemberStatus]) -> Table:
    table = _table("drafter", "model", "sessions", "per token", "round trip", "accepted", texts=2)
    for member in members:
        drafter = member.drafter
        table.add_row(
            _name(member),
            member.model,
            f"{member.sessions}/{member.max_sessions}",
            show_duration(drafter.seconds_per_token) if drafter.seconds_per_token else "-",
            show_duration(drafter.round_trip) if drafter.HasField("round_trip") else "-",
            f"{drafter.acceptance_rate:.0%}" if drafter.HasField("acceptance_rate") else "-",
        )
    return table


def _name(member: pb.MemberStatus) -> Text:
    name = Text(member.name)
    if member.silent_seconds > _MISSING:
        name = Text(f"{member.name} (silent for {show_age(member.silent_seconds)})", style="yellow")
    if member.rejected_reports:
        name.append(f" !{member.rejected_reports}", style="red")
    return name


def _sessions(sessions: Iterable[pb.SessionStatus], members: Sequence[pb.MemberStatus], width: int) -> Table:
    names = {member.instance: member.name for member in members}
    several = sum(member.HasField("verifier") for member in members) > 1
    bars = 6 if width < 90 else 12 if width < 120 else 24
    words = ["session", *(["verifier"] if several else []), "drafter"]
    table = _table(*words, "tokens", "/s", "/step", "accepted", "rtt", "plan", "gain", texts=len(words))
    for session in sessions:
        rate = f"{session.acceptance_rate:.0%}" if session.HasField("acceptance_rate") else "-"
        # Ids are random: their beginning tells them apart.
        verifier = [names.get(session.verifier, session.verifier)] if several else []
        table.add_row(
            session.session[:8],
            *verifier,
            ", ".join(names.get(drafter, drafter) for drafter in session.drafters) or Text("alone", style="dim"),
            str(session.committed_tokens),
            f"{session.tokens_per_second:.1f}",
            f"{session.tokens_per_step:.2f}",
            f"{sparkline(session.acceptance_history, bars)} {rate:>4}",
            show_duration(session.round_trip).replace(" ", "") if session.HasField("round_trip") else "-",
            show_plan(session.plan),
            f"{session.expected_speed_up:.2f}×",
        )
    return table
