"""`dragoman fleet`: the fleet on a Ray cluster, from one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dragoman.security_options import secured
from transport.security import Security

fleet_app = typer.Typer(no_args_is_help=True, help="A fleet on a Ray cluster: up, status, scale, drain, down.")

Config = Annotated[Path, typer.Option("--config", "-c", help="The fleet file; deploy/fleet.yaml explains it")]
ClusterAddress = Annotated[
    str, typer.Option("--address", help="Of the Ray cluster: host:port, local (a Ray of one's own), or auto")
]
Unread = Annotated[
    Path | None, typer.Option("--config", "-c", help="Not read here; every fleet command may be given it")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output")]
Grace = Annotated[str, typer.Option(help="Running texts of a verifier get so long before they go elsewhere")]


@fleet_app.command()
def up(
    config: Config,
    address: ClusterAddress = "auto",
    wait: Annotated[
        str | None, typer.Option(help="For nodes and room that are to come  [default: of the file]")
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Fail at once if a node or room is missing")] = False,
    as_json: AsJson = False,
) -> None:
    """Start what is not there yet, and wait until all of it serves; auto starts a Ray here where there is none."""
    from dragoman.ray_fleet.commands import run_up
    from speculation.errors import InputError
    from transport.durations import parse_duration

    if wait is not None and no_wait:
        raise InputError("wait", wait, "comes with --no-wait as well", remedy="give one of the two")
    seconds = 0.0 if no_wait else None if wait is None else parse_duration("wait", wait)
    run_up(config, address, wait_seconds=seconds, as_json=as_json)


@fleet_app.command()
@secured
def status(
    address: ClusterAddress = "auto",
    as_json: AsJson = False,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Say what is not as this fleet file has it  [default: none]")
    ] = None,
    *,
    security: Security,
) -> None:
    """Every actor, and the fleet as the coordinator sees it."""
    from dragoman.ray_fleet.commands import run_status

    run_status(address, as_json=as_json, security=security, config=config)


@fleet_app.command()
def scale(
    sizes: Annotated[list[str], typer.Argument(help="GROUP=REPLICAS, for example drafters=3")],
    config: Config,
    address: ClusterAddress = "auto",
    grace: Grace = "30s",
) -> None:
    """Change how many replicas groups have, while texts are running."""
    from dragoman.ray_fleet.commands import run_scale
    from transport.durations import parse_duration

    run_scale(config, address, sizes, drain_seconds=parse_duration("grace", grace))


@fleet_app.command()
def drain(
    replica: Annotated[str, typer.Argument(help="GROUP/NUMBER, as `fleet status` shows it")],
    address: ClusterAddress = "auto",
    grace: Grace = "30s",
    config: Unread = None,
) -> None:
    """Take one replica out of service: its texts end or go elsewhere, then it is removed."""
    from dragoman.ray_fleet.commands import run_drain
    from transport.durations import parse_duration

    run_drain(address, replica, drain_seconds=parse_duration("grace", grace))


@fleet_app.command()
def down(address: ClusterAddress = "auto", config: Unread = None) -> None:
    """End the fleet's actors, and the Ray that `fleet up` started, if it did."""
    from dragoman.ray_fleet.commands import run_down

    run_down(address)
