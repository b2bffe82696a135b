"""The options of `dragoman serve`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from drafter_service.settings import DrafterSettings
from dragoman.gateway_options import LOCAL_GATEWAY, Listen, http_address, http_limits
from dragoman.options import MODEL_HELP, AuditLog, Device, Dtype, LogAs, LogFormat, ReadyJson, TrustRemoteCode, Verbose
from dragoman.security_options import secured
from dragoman.settings_options import option_of, settings_from
from dragoman.tracing_options import traced
from gateway.settings import GatewaySettings
from speculation.errors import InputError
from transport.security import Security
from verifier_service.settings import VerifierSettings, check_target_dtype

_DRAFTER_HELP = f"{MODEL_HELP}, or lookup; may be repeated"


@traced("gateway")
@secured
@http_limits
def serve(
    target: Annotated[str, typer.Option(help=MODEL_HELP)],
    drafter: Annotated[list[str] | None, typer.Option(help=_DRAFTER_HELP)] = None,
    listen: Listen = LOCAL_GATEWAY,
    device: Device = "auto",
    drafter_device: Annotated[str | None, typer.Option(help="Of the drafters  [default: --device]")] = None,
    dtype: Dtype = "auto",
    drafter_dtype: Dtype = "auto",
    target_threads: Annotated[int, typer.Option(help="CPU threads of the target; 0: all cores", min=0, max=1024)] = 0,
    drafter_threads: Annotated[
        int, typer.Option(help="CPU threads of each drafter; 0: all cores", min=0, max=1024)
    ] = 1,
    trust_remote_code: TrustRemoteCode = False,
    kv_memory: Annotated[str | None, option_of(VerifierSettings, "kv_memory")] = None,
    ready_json: ReadyJson = False,
    log_format: LogAs = LogFormat.TEXT,
    audit_log: AuditLog = None,
    verbose: Verbose = False,
    *,
    settings: GatewaySettings,
    security: Security,
) -> None:
    """Serve OpenAI's HTTP API from this machine: a target, its drafters and the gateway in one command."""
    from dragoman.child_words import ChildWords
    from dragoman.local_fleet import LocalModels
    from dragoman.local_serving import serve_locally
    from dragoman.log_setup import set_up_logging

    set_up_logging(verbose, log_format=log_format, audit_log=audit_log)
    check_target_dtype(dtype)
    placed = {"device": device, "dtype": dtype, "threads": target_threads, "trust_remote_code": trust_remote_code}
    sessions = settings.max_concurrent
    chosen = settings_from(VerifierSettings, model=target, kv_memory=kv_memory, max_sessions=sessions, **placed)
    placed |= {"device": drafter_device or device, "dtype": drafter_dtype, "threads": drafter_threads}
    drafters = [_drafter_settings(model=model, **placed) for model in drafter or ()]
    logs = (f"--log-format={log_format.value}", *(("--verbose",) if verbose else ()))
    address = http_address(listen, security)
    words = ChildWords(log=verbose, bare=log_format is LogFormat.JSON)
    models = LocalModels(chosen, drafters, log_options=logs)
    serve_locally(models, address, settings, security=security, words=words, ready_json=ready_json)


def _drafter_settings(**values: Any) -> DrafterSettings:
    """Raises InputError that names the options as they are written here."""
    try:
        return settings_from(DrafterSettings, **values)
    except InputError as error:
        raise InputError(f"drafter-{error.field}", error.value, error.problem, remedy=error.remedy) from error
