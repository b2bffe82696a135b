"""`dragoman edge`: a drafter as a service of this machine, for machines outside of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from drafter_service.settings import DrafterSettings
from dragoman.options import MODEL_HELP, Coordinator, Device, Dtype, EngineName, Threads, TrustRemoteCode, Verbose
from dragoman.security_options import secured
from dragoman.settings_options import default_of, option_of, settings_from
from transport.security import Security
from transport.sizes import parse_size

edge_app = typer.Typer(
    no_args_is_help=True, help="A drafter as a hardened service of systemd: install, status, logs, uninstall."
)

_MAX_SESSIONS: int = default_of(DrafterSettings, "max_sessions")
_PREFIX_MEMORY: str = default_of(DrafterSettings, "prefix_memory")
Model = Annotated[str, typer.Option(help=f"{MODEL_HELP}, or lookup")]
Verifier = Annotated[str | None, typer.Option(help="Address of the verifier that it drafts for")]
Name = Annotated[
    str | None, typer.Option(help="Of the drafter, its unit and its certificate; several on a machine need one each")
]
Root = Annotated[Path | None, typer.Option(help="Write below this folder instead of /, for an image", metavar="FOLDER")]
MaxSessions = Annotated[int, option_of(DrafterSettings, "max_sessions", bounds=True)]
PrefixMemory = Annotated[str, option_of(DrafterSettings, "prefix_memory")]
Engine = Annotated[EngineName, option_of(DrafterSettings, "engine")]
MemoryMax = Annotated[str | None, typer.Option(help="End it, and start it again, when it takes more: 2GiB")]
Program = Annotated[
    Path | None, typer.Option(help="The dragoman that the unit starts  [default: this one]", metavar="FILE")
]
BindPaths = Annotated[
    bool, typer.Option("--bind-paths", help="Show the service, read-only, what it needs of /home, /root and /tmp")
]
Request = Annotated[
    bool, typer.Option("--request", help="Make a key here, and a request for `dragoman certs issue --request`")
]
Force = Annotated[bool, typer.Option("--force", help="Replace a unit and settings that differ")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print all files and write none")]
NoStart = Annotated[bool, typer.Option("--no-start", help="Do not start it now")]
Lines = Annotated[int, typer.Option("--lines", "-n", help="Lines from the end", min=1, max=100_000)]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes")]
Purge = Annotated[bool, typer.Option("--purge", help="Keys, certificates, token and models as well")]


@edge_app.command()
@secured
def install(
    model: Model,
    verifier: Verifier = None,
    coordinator: Coordinator = None,
    name: Name = None,
    max_sessions: MaxSessions = _MAX_SESSIONS,
    prefix_memory: PrefixMemory = _PREFIX_MEMORY,
    engine: Engine = EngineName.AUTO,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    threads: Threads = 0,
    trust_remote_code: TrustRemoteCode = False,
    memory_max: MemoryMax = None,
    request: Request = False,
    program: Program = None,
    bind_paths: BindPaths = False,
    root: Root = None,
    force: Force = False,
    dry_run: DryRun = False,
    no_start: NoStart = False,
    verbose: Verbose = False,
    *,
    security: Security,
) -> None:
    """Make a drafter a service that starts with this machine. Writes unit, settings and credentials, and starts it."""
    from dragoman.edge.asked import Asked
    from dragoman.edge.install import run_install

    given = {"model": model, "max_sessions": max_sessions, "engine": engine.value, "device": device, "dtype": dtype}
    given |= {"prefix_memory": prefix_memory}
    asked = Asked(
        settings=settings_from(DrafterSettings, threads=threads, trust_remote_code=trust_remote_code, **given),
        security=security,
        verifier=verifier,
        coordinator=coordinator,
        name=name,
        memory_max=None if memory_max is None else parse_size("memory-max", memory_max),
        root=root,
        program=program,
        bind_paths=bind_paths,
        request=request,
        verbose=verbose,
    )
    run_install(asked, force=force, dry_run=dry_run, start=not no_start)


@edge_app.command()
def status(name: Name = None) -> None:
    """How the service is, and its last words. Exit code 1 if it does not run."""
    from dragoman.edge.status import run_status

    if not run_status(name):
        raise typer.Exit(1)


@edge_app.command()
def logs(name: Name = None, lines: Lines = 100, follow: Follow = False) -> None:
    """What it said, from systemd's journal."""
    from dragoman.edge.layout import installed_layout
    from dragoman.edge.systemd import manager_version, show_journal

    manager_version()
    raise typer.Exit(show_journal(installed_layout(Path("/"), name).unit, lines, follow=follow))


@edge_app.command()
def uninstall(name: Name = None, purge: Purge = False, root: Root = None) -> None:
    """Stop the service and remove what install wrote. Keys and models stay, unless --purge is given."""
    from dragoman.edge.uninstall import run_uninstall

    run_uninstall(name, root=root, purge=purge)
