"""The options of `dragoman verifier`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dragoman.options import (
    LOCAL_VERIFIER,
    MODEL_HELP,
    Coordinator,
    Device,
    Dtype,
    EngineName,
    ReadyJson,
    Threads,
    TrustRemoteCode,
    Verbose,
)

if TYPE_CHECKING:
    from verifier_service.engine import Engine


def verifier(
    model: Annotated[str, typer.Option(help=MODEL_HELP)],
    listen: Annotated[str, typer.Option(help="Address to serve at; port 0 takes a free one")] = LOCAL_VERIFIER,
    allow_plaintext: Annotated[bool, typer.Option(help="Serve other machines although nothing is encrypted")] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 0,
    trust_remote_code: TrustRemoteCode = False,
    width: Annotated[int, typer.Option(help="Draft tokens per verify step; 0 turns speculation off")] = 16,
    lookahead: Annotated[int, typer.Option(help="Tokens that a drafter may run ahead of the text")] = 16,
    stop_threshold: Annotated[float, typer.Option(help="A drafter rests when its confidence falls below this")] = 0.001,
    patience: Annotated[
        int, typer.Option(help="Milliseconds that a step may wait for a draft; pays only where processors are shared")
    ] = 0,
    span_tokens: Annotated[int, typer.Option(help="A drafter ships a span at least every so many tokens")] = 1,
    draft_top_k: Annotated[int, typer.Option(help="Probabilities sent with a draft token, if the rule needs any")] = 0,
    alternatives: Annotated[int, typer.Option(help="Further choices that a drafter continues where it is unsure")] = 3,
    alternative_threshold: Annotated[float, typer.Option(help="Unsure is below this confidence")] = 0.9,
    verify_threshold: Annotated[float, typer.Option(help="Candidates less likely than this are not verified")] = 0.05,
    engine: Annotated[
        EngineName, typer.Option(help="paged: a GPU in 16 bits, one CUDA graph a step; auto: paged where it works")
    ] = EngineName.AUTO,
    kv_memory: Annotated[
        str | None, typer.Option(help="For the paged engine's KV cache, 8GiB say  [default: what is free and useful]")
    ] = None,
    adaptive: Annotated[bool, typer.Option(help="Adapt all of this to what is measured, or keep it")] = True,
    lookup: Annotated[bool, typer.Option(help="Beside the drafters, look up in prompt and text how it goes on")] = True,
    max_sessions: Annotated[int, typer.Option(help="Texts written at once, at most", min=1, max=100_000)] = 64,
    grace: Annotated[str, typer.Option(help="When stopped, texts may end for this long, then are handed over")] = "1s",
    coordinator: Coordinator = None,
    name: Annotated[str | None, typer.Option(help="Shown to people  [default: host/model:port]")] = None,
    advertise: Annotated[
        str | None, typer.Option(help="Where the fleet reaches this verifier, host:port  [default: --listen]")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve Prometheus metrics at this port of the --listen host", min=1, max=65535)
    ] = None,
    ready_json: ReadyJson = False,
    verbose: Verbose = False,
) -> None:
    """Serve a target model; clients and drafters dial in."""
    from dragoman.durations import parse_duration
    from dragoman.loading import load_model
    from dragoman.serve import fleet_membership, listen_address, serve_verifier, set_up_logging
    from dragoman.sizes import parse_size
    from speculation.protocol.messages import SpeculationPlan
    from verifier_service.engine_choice import EngineKind, engine_for
    from verifier_service.transformers_engine import check_target_dtype

    set_up_logging(verbose)
    check_target_dtype(dtype)
    address = listen_address(listen, allow_plaintext=allow_plaintext)
    membership = fleet_membership(coordinator, name, address, advertise)
    kv_bytes = None if kv_memory is None else parse_size("kv-memory", kv_memory)
    grace_seconds = parse_duration("grace", grace)
    wait, unsure, least = patience / 1000, alternative_threshold, verify_threshold
    plan = SpeculationPlan(
        width, lookahead, stop_threshold, span_tokens, wait, alternatives, unsure, least, draft_top_k
    )

    def load() -> Engine:
        loaded = load_model(model, device=device, dtype=dtype, threads=threads, trust_remote_code=trust_remote_code)
        return engine_for(loaded, EngineKind(engine.value), kv_bytes=kv_bytes, max_sessions=max_sessions)

    serve_verifier(
        load,
        address,
        plan,
        adaptive=adaptive,
        lookup=lookup,
        max_sessions=max_sessions,
        grace=grace_seconds,
        membership=membership,
        metrics_port=metrics_port,
        ready_json=ready_json,
    )
