"""A target and a drafter that say what a recording says, at any speed one likes: fast machines that one does not have.

Real processes, sockets and sessions; only the two forward passes are replaced by waiting. One prompt per recorded
text: its number. Greedy only.

    python -m benchmarks.replay verifier --recording recording.json --step 0.025 --step-per-token 0.0002
    python -m benchmarks.replay drafter --recording recording.json --token 0.003 --verifier 127.0.0.1:50061
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.command import run_command
from benchmarks.recording import load
from benchmarks.replay_drafter import ReplayDrafter, WrongDrafter
from benchmarks.replay_target import ReplayEngine
from dragoman.drafting import serve_drafter
from dragoman.security_options import secured
from dragoman.serving import serve_verifier
from speculation.planning.plan import START
from transport.address import Address
from transport.security import Security
from verifier_service.server import GRACE
from verifier_service.settings import PlanSettings, VerifierSettings

app = typer.Typer(add_completion=False)
Recording = Annotated[Path, typer.Option(help="Made by benchmarks.recording")]


@app.command()
@secured
def verifier(
    *,
    recording: Recording,
    target: str = "qwen2.5-coder-1.5b",
    step: float = 0.025,
    step_per_token: float = 0.0002,
    listen: str = "127.0.0.1:0",
    width: int = START.width,
    lookahead: int = START.lookahead,
    stop_threshold: float = START.stop_threshold,
    span_tokens: int = START.span_tokens,
    alternatives: int = START.alternatives,
    alternative_threshold: float = START.alternative_threshold,
    verify_threshold: float = START.verify_threshold,
    patience: Annotated[int, typer.Option(help="Milliseconds")] = 0,
    adaptive: bool = True,
    lookup: bool = True,
    max_sessions: int = 64,
    security: Security,
) -> None:
    """A target that steps at the given speed. Says ready in JSON."""
    engine = ReplayEngine(load(recording), target, step=step, step_per_token=step_per_token)
    plan = PlanSettings(
        width=width,
        lookahead=lookahead,
        stop_threshold=stop_threshold,
        span_tokens=span_tokens,
        patience=patience / 1000,
        alternatives=alternatives,
        alternative_threshold=alternative_threshold,
        verify_threshold=verify_threshold,
    )
    settings = VerifierSettings(
        model=target, adaptive=adaptive, lookup=lookup, max_sessions=max_sessions, grace=GRACE, plan=plan
    )
    address = Address.parse(listen, field="listen", allow_port_zero=True)
    serve_verifier(lambda: engine, address, settings, security=security, ready_json=True)


@app.command()
@secured
def drafter(
    *,
    verifier: Annotated[str, typer.Option(help="Address of the verifier, host:port")],
    recording: Annotated[Path | None, typer.Option(help="Without one: a drafter that is never right")] = None,
    token: float = 0.003,
    row: float = 0.15,
    security: Security,
) -> None:
    """A drafter of the given speed. Says ready in JSON."""
    replaying: ReplayDrafter | WrongDrafter
    if recording is None:
        replaying = WrongDrafter(token=token, row=row)
    else:
        replaying = ReplayDrafter(load(recording), token=token, row=row)
    serve_drafter(replaying, Address.parse(verifier, field="verifier"), security=security, ready_json=True)


if __name__ == "__main__":
    run_command(app)
