"""The options of `dragoman drafter`."""

from __future__ import annotations

from typing import Annotated

import typer

from drafter_service.settings import DrafterSettings
from dragoman.options import (
    LOCAL_VERIFIER,
    MODEL_HELP,
    Coordinator,
    Device,
    Dtype,
    EngineName,
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
from speculation.errors import InputError
from transport.address import COORDINATOR_PORT, DEFAULT_PORT, Address
from transport.security import Security


@secured
def drafter(
    model: Annotated[str, typer.Option(help=f"{MODEL_HELP}, or lookup")],
    verifier: Verifier = None,
    coordinator: Coordinator = None,
    name: Annotated[str | None, typer.Option(help="Shown to people  [default: host/model#id]")] = None,
    max_sessions: Annotated[int, option_of(DrafterSettings, "max_sessions", bounds=True)] = default_of(
        DrafterSettings, "max_sessions"
    ),
    engine: Annotated[EngineName, option_of(DrafterSettings, "engine")] = EngineName.AUTO,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 0,
    trust_remote_code: TrustRemoteCode = False,
    ready_json: ReadyJson = False,
    log_format: LogAs = LogFormat.TEXT,
    verbose: Verbose = False,
    *,
    security: Security,
) -> None:
    """Draft for a verifier, or for those that a coordinator names; dials out, and again whenever the link ends."""
    from dragoman.loading import load_drafter
    from dragoman.log_setup import set_up_logging
    from dragoman.serve import serve_drafter

    set_up_logging(verbose, log_format=log_format)
    dialled = _dialled(verifier, coordinator, security)
    settings = settings_from(
        DrafterSettings,
        model=model,
        device=device,
        dtype=dtype,
        threads=threads,
        trust_remote_code=trust_remote_code,
        max_sessions=max_sessions,
        engine=engine.value,
    )
    serve_drafter(
        load_drafter(settings),
        dialled,
        fleet=coordinator is not None,
        name=name,
        max_sessions=settings.max_sessions,
        security=security,
        ready_json=ready_json,
    )


def _dialled(verifier: str | None, coordinator: str | None, security: Security) -> Address:
    """Raises InputError for two addresses, or one that may not be dialled so."""
    from transport.channels import check_dialling

    if verifier is not None and coordinator is not None:
        raise InputError("verifier", verifier, "comes with --coordinator as well", remedy="give one of the two")
    field, address = ("verifier", verifier or LOCAL_VERIFIER) if coordinator is None else ("coordinator", coordinator)
    port = COORDINATOR_PORT if coordinator is not None else DEFAULT_PORT
    dialled = Address.parse(address, field=field, default_port=port)
    check_dialling(dialled, security, who=field)
    return dialled
