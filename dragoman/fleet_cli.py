"""`dragoman coordinator`, `dragoman status`, `dragoman top` and `dragoman drain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dragoman.options import AuditLog, HealthListen, LogAs, LogFormat
from dragoman.security_options import secured
from transport.address import COORDINATOR_PORT
from transport.security import Security

LOCAL_COORDINATOR = f"127.0.0.1:{COORDINATOR_PORT}"
FleetOf = Annotated[
    str | None,
    typer.Option("--coordinator", help="Let the coordinator at this address choose the verifier"),
]
FleetModel = Annotated[str, typer.Option("--model", help="Which of the fleet's models, if it serves several")]
Coordinator = Annotated[str, typer.Option(help="Address of the coordinator, host:port")]
ResumeFor = Annotated[
    str | None,
    typer.Option(help="When a verifier is lost, look so long for one that writes on, such as 2m  [default: 30s]"),
]


def coordinator(
    listen: Annotated[
        str | None,
        typer.Option(help=f"Address to serve at; port 0 takes a free one  [default: {LOCAL_COORDINATOR}]"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with settings; coordinator/coordinator.yaml explains them")
    ] = None,
    health_listen: HealthListen = None,
    ready_json: Annotated[
        bool, typer.Option("--ready-json", hidden=True, help="Say ready in JSON, for a parent")
    ] = False,
    log_format: LogAs = LogFormat.TEXT,
    audit_log: AuditLog = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log what goes well too: who joins and leaves, and why")
    ] = False,
    *,
    security: Security,
) -> None:
    """Steer a fleet: which drafters draft for which sessions, and how far; verifiers and drafters dial in."""
    from coordinator.config import CoordinatorConfig, read_config
    from dragoman.log_setup import set_up_logging
    from dragoman.serving import health_address, listen_address, serve_coordinator

    set_up_logging(verbose, log_format=log_format, audit_log=audit_log)
    settings = CoordinatorConfig() if config is None else read_config(config)
    address = listen_address(listen or settings.listen, security, default_port=COORDINATOR_PORT)
    health = health_address(health_listen)
    serve_coordinator(settings, address, health_listen=health, security=security, ready_json=ready_json)


def status(
    coordinator: Coordinator = LOCAL_COORDINATOR,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output")] = False,
    *,
    security: Security,
) -> None:
    """The fleet as it stands: verifiers, drafters, sessions."""
    from dragoman.fleet import run_status

    run_status(coordinator, as_json=as_json, security=security)


def top(
    coordinator: Coordinator = LOCAL_COORDINATOR,
    once: Annotated[bool, typer.Option("--once", help="Draw once and leave")] = False,
    seconds: Annotated[float, typer.Option(help="Between two drawings", min=0.1)] = 1.0,
    *,
    security: Security,
) -> None:
    """Watch the fleet: who drafts for whom, how fast, how often it is right. Ctrl-C leaves."""
    from dragoman.fleet import run_top

    run_top(coordinator, once=once, seconds=seconds, security=security)


def drain(
    verifier: Annotated[str, typer.Argument(help="Name, instance or address of the verifier")],
    coordinator: Coordinator = LOCAL_COORDINATOR,
    hand_over: Annotated[
        bool, typer.Option("--hand-over", help="End its sessions now; their clients resume elsewhere")
    ] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take it back into service")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Until it has no sessions any more")] = False,
    *,
    security: Security,
) -> None:
    """Take a verifier out of service: no new sessions; those that run finish, or are handed over."""
    from dragoman.fleet import run_drain

    run_drain(verifier, coordinator, hand_over=hand_over, undo=undo, wait=wait, security=security)


def add_fleet_commands(app: typer.Typer) -> None:
    for command in (coordinator, status, top, drain):
        app.command()(secured(command))
