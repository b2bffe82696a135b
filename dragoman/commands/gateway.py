"""The options of `dragoman gateway`."""

from __future__ import annotations

from typing import Annotated

import typer

from dragoman.gateway_options import LOCAL_GATEWAY, Listen, http_address, http_limits
from dragoman.options import AuditLog, LogAs, LogFormat, ReadyJson, Verbose, Verifier
from dragoman.security_options import secured
from dragoman.tracing_options import traced
from gateway.settings import GatewaySettings
from transport.security import Security


@traced("gateway")
@secured
@http_limits
def gateway(
    verifier: Verifier = None,
    coordinator: Annotated[
        str | None, typer.Option(help="Serve the fleet of the coordinator at this address, instead of one verifier")
    ] = None,
    listen: Listen = LOCAL_GATEWAY,
    ready_json: ReadyJson = False,
    log_format: LogAs = LogFormat.TEXT,
    audit_log: AuditLog = None,
    verbose: Verbose = False,
    *,
    settings: GatewaySettings,
    security: Security,
) -> None:
    """Serve OpenAI's HTTP API in front of a verifier or a fleet."""
    from dragoman.log_setup import set_up_logging
    from dragoman.serving import serve_gateway

    set_up_logging(verbose, log_format=log_format, audit_log=audit_log)
    address = http_address(listen, security)
    serve_gateway(verifier, coordinator, address, settings, security=security, ready_json=ready_json)
