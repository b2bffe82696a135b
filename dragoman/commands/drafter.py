"""The options of `dragoman drafter`."""

from __future__ import annotations

from typing import Annotated

import typer

from drafter_service.settings import DrafterSettings
from dragoman.options import (
    MODEL_HELP,
    Coordinator,
    Device,
    Dtype,
    EngineName,
    HealthListen,
    LogAs,
    LogFormat,
    ReadyJson,
    Threads,
    TrustRemoteCode,
    Verbose,
    Verifier,
)
from dragoman.security_options import secured
from dragoman.settings_options import default_of, option_of, settings_from
from dragoman.tracing_options import traced
from transport.security import Security

_MAX_SESSIONS, _PREFIX_MEMORY = (default_of(DrafterSettings, name) for name in ("max_sessions", "prefix_memory"))


@traced("drafter")
@secured
def drafter(
    model: Annotated[str, typer.Option(help=f"{MODEL_HELP}, or lookup")],
    verifier: Verifier = None,
    coordinator: Coordinator = None,
    name: Annotated[str | None, typer.Option(help="Shown to people  [default: host/model#id]")] = None,
    max_sessions: Annotated[int, option_of(DrafterSettings, "max_sessions", bounds=True)] = _MAX_SESSIONS,
    prefix_memory: Annotated[str, option_of(DrafterSettings, "prefix_memory")] = _PREFIX_MEMORY,
    engine: Annotated[EngineName, option_of(DrafterSettings, "engine")] = EngineName.AUTO,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 0,
    trust_remote_code: TrustRemoteCode = False,
    health_listen: HealthListen = None,
    ready_json: ReadyJson = False,
    log_format: LogAs = LogFormat.TEXT,
    verbose: Verbose = False,
    *,
    security: Security,
) -> None:
    """Draft for a verifier, or for those that a coordinator names; dials out, and again whenever the link ends."""
    from dragoman.drafting import serve_drafter
    from dragoman.loading import load_drafter
    from dragoman.log_setup import set_up_logging
    from dragoman.serving import check_ports, dialled_address, health_address

    set_up_logging(verbose, log_format=log_format)
    dialled = dialled_address(verifier, coordinator, security)
    health = health_address(health_listen)
    settings = settings_from(
        DrafterSettings,
        model=model,
        device=device,
        dtype=dtype,
        threads=threads,
        trust_remote_code=trust_remote_code,
        max_sessions=max_sessions,
        prefix_memory=prefix_memory,
        engine=engine.value,
    )
    check_ports(health_listen=health)
    serve_drafter(
        load_drafter(settings),
        dialled,
        fleet=coordinator is not None,
        name=name,
        max_sessions=settings.max_sessions,
        health_listen=health,
        security=security,
        ready_json=ready_json,
    )
