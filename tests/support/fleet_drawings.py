"""How a fleet is drawn: one with made-up figures that are wide and odd, and a view as text of a given width."""

from __future__ import annotations

from rich.console import Console, RenderableType

from protos.dragoman.v1 import dragoman_pb2 as pb


def a_fleet(sessions: int = 3) -> pb.StatusResponse:
    """Two verifiers, two drafters (one silent, one not measured) and so many sessions, of which the first has no
    drafter; names and figures are as long as they come, since it is them that a narrow view must not cut."""
    status = pb.StatusResponse(uptime_seconds=4000)
    for number in (1, 2):
        verifier = status.members.add(
            instance=f"v{number}", name=f"a-rather-long-host-name-{number}", model="Qwen/Qwen2.5-Coder-32B-Instruct",
            sessions=sessions, max_sessions=64, rejected_reports=number - 1,
        ).verifier  # fmt: skip
        verifier.address, verifier.tokens_per_second, verifier.committed_tokens = (
            f"10.0.0.{number}:50061",
            123.4,
            987654,
        )
    drafter = status.members.add(instance="d1", name="edge", model="smollm2-135m", max_sessions=4, silent_seconds=2.5)
    drafter.drafter.seconds_per_token = 0.0123
    status.members.add(instance="d2", name="new", model="lookup", max_sessions=4, drafter=pb.FleetDrafterStatus())
    for number in range(sessions):
        status.sessions.add(
            session=f"{number:08x}deadbeef", verifier="v1", drafters=["d1"] if number else [], committed_tokens=54321,
            tokens_per_second=98.7, tokens_per_step=3.21, acceptance_rate=0.5, acceptance_history=[0, 0.5, 1.0] * 20,
            round_trip=0.08, plan=pb.SpeculationPlan(width=16, lookahead=32, alternatives=2), expected_speed_up=1.84,
        )  # fmt: skip
    return status


def drawn(view: RenderableType, width: int) -> list[str]:
    """The lines of a view on a console that is so wide and knows no colours."""
    console = Console(width=width, force_terminal=False, legacy_windows=False)
    with console.capture() as captured:
        console.print(view)
    return captured.get().rstrip("\n").split("\n")
