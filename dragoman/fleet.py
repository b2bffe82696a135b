"""The fleet as the coordinator tells of it: asked for once, or again and again."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from rich.console import Console
from rich.live import Live

from dragoman.coordinator_client import CoordinatorClient
from dragoman.fleet_view import away_line, fleet_view
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import ConnectionFailedError, DragomanError, InputError
from speculation.plural import count_of
from transport import codec
from transport.security import Security

#: Between two looks at a verifier that drains, in seconds.
_WAIT_SECONDS = 0.2


async def fetch_status(coordinator: str, security: Security | None = None) -> pb.StatusResponse:
    """``security`` None: as the environment says. Raises what ``CoordinatorClient.status`` raises."""
    async with CoordinatorClient(coordinator, security=security) as client:
        return await client.status()


def run_status(coordinator: str, *, as_json: bool, security: Security) -> None:
    status = asyncio.run(fetch_status(coordinator, security))
    if as_json:
        print(json.dumps(status_as_dict(status)))
    else:
        console = Console()
        console.print(fleet_view(status, width=console.width))


def run_top(coordinator: str, *, once: bool, seconds: float, security: Security) -> None:
    """Draw until Ctrl-C, whatever becomes of the coordinator. ``once``: raises what ``fetch_status`` raises."""
    console = Console()
    if once:
        console.print(fleet_view(asyncio.run(fetch_status(coordinator, security)), width=console.width))
        return
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(watch(coordinator, console, seconds, security))


def run_drain(verifier: str, coordinator: str, *, hand_over: bool, undo: bool, wait: bool, security: Security) -> None:
    """Order it; with ``wait``, until the verifier has no sessions any more or is gone. Raises InputError."""
    if undo and wait:
        raise InputError("wait", True, "comes with --undo", remedy="a verifier in service is never empty for good")
    console = Console()

    async def order() -> None:
        async with CoordinatorClient(coordinator, security=security) as client:
            answer = await client.drain(verifier, hand_over=hand_over, undo=undo)
            state = "drains" if answer.draining else "takes sessions again"
            console.print(
                f"{answer.name} ({answer.instance}) {state}, {count_of(answer.sessions, 'session')}", highlight=False
            )
            while wait and await _still_runs(client, answer.instance):
                await asyncio.sleep(_WAIT_SECONDS)

    asyncio.run(order())


async def _still_runs(client: CoordinatorClient, instance: str) -> bool:
    """Whether the verifier is there with sessions, or has not yet said that it drains."""
    members = [member for member in (await client.status()).members if member.instance == instance]
    return any(member.sessions or not member.verifier.draining for member in members)


async def watch(coordinator: str, console: Console, seconds: float, security: Security | None = None) -> None:
    """Draw the fleet every so many seconds, until cancelled."""
    loop = asyncio.get_running_loop()
    status: pb.StatusResponse | None = None
    answered_at = loop.time()
    # Elsewhere than on a terminal each state is printed below the one before.
    live = Live(console=console, screen=True, auto_refresh=False) if console.is_terminal else None
    with live or contextlib.nullcontext():
        async with CoordinatorClient(coordinator, security=security) as client:
            while True:
                problem: DragomanError | None = None
                try:
                    status = await client.status()
                    answered_at = loop.time()
                except ConnectionFailedError as error:
                    problem = error
                away = away_line(client.address, loop.time() - answered_at) if problem is not None else None
                view = fleet_view(status, width=console.width, height=console.height if live else None, away=away)
                if live is not None:
                    live.update(view, refresh=True)
                else:
                    console.print(view)
                await asyncio.sleep(seconds)


def status_as_dict(status: pb.StatusResponse) -> dict[str, Any]:
    """For JSON: times in seconds, what is not known is null."""
    return {
        "version": status.version,
        "uptime_seconds": status.uptime_seconds,
        "verifiers": [
            _member(member)
            | {
                "address": member.verifier.address,
                "tokens_per_second": member.verifier.tokens_per_second,
                "committed_tokens": member.verifier.committed_tokens,
                "kv_cache_bytes": member.verifier.kv_cache_bytes,
                "draining": member.verifier.draining,
                "dtype": member.verifier.dtype,
            }
            for member in status.members
            if member.HasField("verifier")
        ],
        "drafters": [
            _member(member)
            | {
                "seconds_per_token": member.drafter.seconds_per_token or None,
                "attached_to": list(member.drafter.attached_to),
                "round_trip": _optional(member.drafter, "round_trip"),
                "acceptance_rate": _optional(member.drafter, "acceptance_rate"),
                "spans": member.drafter.spans,
                "stale_spans": member.drafter.stale_spans,
                "draft_tokens": member.drafter.draft_tokens,
                "accepted_tokens": member.drafter.accepted_tokens,
            }
            for member in status.members
            if member.HasField("drafter")
        ],
        "sessions": [_session(session) for session in status.sessions],
    }


def _member(member: pb.MemberStatus) -> dict[str, Any]:
    names = ("instance", "name", "model", "sessions", "max_sessions", "uptime_seconds", "silent_seconds")
    return {name: getattr(member, name) for name in (*names, "rejected_reports")} | {"notes": list(member.notes)}


def _session(session: pb.SessionStatus) -> dict[str, Any]:
    names = ("session", "verifier", "committed_tokens", "tokens_per_second", "tokens_per_step", "expected_speed_up")
    plan = session.plan
    return {name: getattr(session, name) for name in names} | {
        "drafters": list(session.drafters),
        "sources": [_source(source) for source in session.sources],
        "acceptance_rate": _optional(session, "acceptance_rate"),
        "acceptance_history": list(session.acceptance_history),
        "round_trip": _optional(session, "round_trip"),
        "plan": {field.name: getattr(plan, field.name) for field in plan.DESCRIPTOR.fields}
        if session.HasField("plan")
        else None,
    }


def _source(source: pb.SourceStats) -> dict[str, Any]:
    kind = codec.source_from_wire(source.source)
    names = ("name", "model", "instance", "draft_tokens", "accepted_tokens")
    return {"source": kind.label if kind is not None else None} | {name: getattr(source, name) for name in names}


def _optional(message: pb.FleetDrafterStatus | pb.SessionStatus, name: str) -> float | None:
    return getattr(message, name) if message.HasField(name) else None
