"""The options of `dragoman verifier`."""

from __future__ import annotations

from typing import Annotated

import typer

from dragoman.options import (
    LOCAL_VERIFIER,
    MODEL_HELP,
    AuditLog,
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
)
from dragoman.security_options import secured
from dragoman.settings_options import default_of, option_of, settings_from
from dragoman.tracing_options import traced
from transport.security import Security
from verifier_service.drafter_trust import PromptsTo
from verifier_service.recycled_texts import Recycle
from verifier_service.settings import PlanSettings, VerifierSettings, check_target_dtype


@traced("verifier")
@secured
def verifier(
    model: Annotated[str, typer.Option(help=MODEL_HELP)],
    listen: Annotated[str, typer.Option(help="Address to serve at; port 0 takes a free one")] = LOCAL_VERIFIER,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 0,
    trust_remote_code: TrustRemoteCode = False,
    width: Annotated[int, option_of(PlanSettings, "width")] = default_of(PlanSettings, "width"),
    lookahead: Annotated[int, option_of(PlanSettings, "lookahead")] = default_of(PlanSettings, "lookahead"),
    stop_threshold: Annotated[float, option_of(PlanSettings, "stop_threshold")] = default_of(
        PlanSettings, "stop_threshold"
    ),
    patience: Annotated[
        int, typer.Option(help="Milliseconds that a step may wait for a draft; pays only where processors are shared")
    ] = 0,
    span_tokens: Annotated[int, option_of(PlanSettings, "span_tokens")] = default_of(PlanSettings, "span_tokens"),
    draft_top_k: Annotated[int, option_of(PlanSettings, "draft_top_k")] = default_of(PlanSettings, "draft_top_k"),
    alternatives: Annotated[int, option_of(PlanSettings, "alternatives")] = default_of(PlanSettings, "alternatives"),
    alternative_threshold: Annotated[float, option_of(PlanSettings, "alternative_threshold")] = default_of(
        PlanSettings, "alternative_threshold"
    ),
    verify_threshold: Annotated[float, option_of(PlanSettings, "verify_threshold")] = default_of(
        PlanSettings, "verify_threshold"
    ),
    engine: Annotated[EngineName, option_of(VerifierSettings, "engine")] = EngineName.AUTO,
    kv_memory: Annotated[str | None, option_of(VerifierSettings, "kv_memory")] = None,
    tensor_parallel: Annotated[int, option_of(VerifierSettings, "tensor_parallel", bounds=True)] = 1,
    prefix_caching: Annotated[bool, option_of(VerifierSettings, "prefix_caching")] = True,
    exact: Annotated[bool, option_of(VerifierSettings, "exact")] = True,
    adaptive: Annotated[bool, option_of(VerifierSettings, "adaptive")] = True,
    lookup: Annotated[bool, option_of(VerifierSettings, "lookup")] = True,
    recycling: Annotated[Recycle, option_of(VerifierSettings, "recycling")] = Recycle.CLIENT,
    max_sessions: Annotated[int, option_of(VerifierSettings, "max_sessions", bounds=True)] = default_of(
        VerifierSettings, "max_sessions"
    ),
    max_sessions_each: Annotated[int | None, option_of(VerifierSettings, "max_sessions_each", bounds=True)] = None,
    trusted_drafters: Annotated[list[str] | None, option_of(VerifierSettings, "trusted_drafters")] = None,
    prompts_to: Annotated[PromptsTo, option_of(VerifierSettings, "prompts_to")] = PromptsTo.ALL,
    grace: Annotated[str, option_of(VerifierSettings, "grace")] = "1s",
    coordinator: Coordinator = None,
    name: Annotated[str | None, typer.Option(help="Shown to people  [default: host/model:port]")] = None,
    advertise: Annotated[
        str | None, typer.Option(help="Where the fleet reaches this verifier, host:port  [default: --listen]")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve Prometheus metrics at this port of the --listen host", min=1, max=65535)
    ] = None,
    health_listen: HealthListen = None,
    ready_json: ReadyJson = False,
    log_format: LogAs = LogFormat.TEXT,
    audit_log: AuditLog = None,
    verbose: Verbose = False,
    *,
    security: Security,
) -> None:
    """Serve a target model; clients and drafters dial in."""
    from dragoman.loading import load_target
    from dragoman.log_setup import set_up_logging
    from dragoman.serving import fleet_membership, health_address, listen_address, serve_verifier
    from language_models.weights import check_name
    from speculation.protocol.messages import SpeculationPlan
    from transport.channels import check_dialling
    from transport.durations import parse_duration
    from transport.sizes import parse_size

    set_up_logging(verbose, log_format=log_format, audit_log=audit_log)
    check_target_dtype(dtype)
    address = listen_address(listen, security)
    health = health_address(health_listen)
    membership = fleet_membership(coordinator, name, address, advertise)
    if membership is not None:
        check_dialling(membership.coordinator, security, who="coordinator")
    if kv_memory is not None:
        parse_size("kv-memory", kv_memory)  # what is wrong with it is said in its own words
    plan = SpeculationPlan(
        width=width,
        lookahead=lookahead,
        stop_threshold=stop_threshold,
        span_tokens=span_tokens,
        patience=patience / 1000,
        alternatives=alternatives,
        alternative_threshold=alternative_threshold,
        verify_threshold=verify_threshold,
        top_k=draft_top_k,
    )
    settings = settings_from(
        VerifierSettings,
        model=model,
        device=device,
        dtype=dtype,
        threads=threads,
        trust_remote_code=trust_remote_code,
        engine=engine.value,
        kv_memory=kv_memory,
        tensor_parallel=tensor_parallel,
        prefix_caching=prefix_caching,
        exact=exact,
        adaptive=adaptive,
        lookup=lookup,
        recycling=recycling.value,
        max_sessions=max_sessions,
        max_sessions_each=max_sessions_each,
        trusted_drafters=trusted_drafters or [],
        prompts_to=prompts_to.value,
        grace=parse_duration("grace", grace),
        plan=PlanSettings.of(plan),
    )
    settings.trust.check(security)
    check_name(model)

    serve_verifier(
        lambda: load_target(settings),
        address,
        settings,
        membership=membership,
        metrics_port=metrics_port,
        health_listen=health,
        security=security,
        ready_json=ready_json,
    )
