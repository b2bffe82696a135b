"""The command line: options in, calls out.

Every option can be set by an environment variable, DRAGOMAN_<COMMAND>_<OPTION>.

Heavy modules are imported inside the commands, so that `dragoman --help` is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from dragoman.doctor_cli import doctor
from dragoman.fleet_cli import FleetModel, FleetOf, ResumeFor, add_fleet_commands
from dragoman.models_cli import models_app
from dragoman.options import (
    LOCAL_VERIFIER,
    MODEL_HELP,
    AsJson,
    Coordinator,
    Device,
    Dtype,
    MaxTokens,
    MinP,
    NoDraft,
    ReadyJson,
    RuleName,
    RuleOption,
    Seed,
    Temperature,
    Threads,
    TopK,
    TopP,
    Verbose,
    Verifier,
)
from dragoman.plan import plan
from dragoman.ray_cli import fleet_app
from protos.version import VERSION
from speculation.errors import DragomanError, InputError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Distributed speculative decoding across vocabularies: a small drafter guesses, a large target checks, "
    "and the text is the target's own.",
)
app.add_typer(models_app, name="models")
app.add_typer(fleet_app, name="fleet")
app.command("plan")(plan)
app.command("doctor")(doctor)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"dragoman {VERSION}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, allow_from_autoenv=False, help="Show the version"),
    ] = False,
) -> None:
    """Options of all commands."""


@app.command()
def demo(
    target: Annotated[str, typer.Option(help=MODEL_HELP)] = "qwen2.5-coder-1.5b",
    drafter: Annotated[str, typer.Option(help=f"{MODEL_HELP}, or lookup")] = "smollm2-135m",
    max_tokens: MaxTokens = 64,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    device: Device = "auto",
    target_dtype: Dtype = "auto",
    drafter_dtype: Dtype = "auto",
    target_threads: Annotated[int, typer.Option(help="CPU threads of the target; 0: all cores")] = 0,
    drafter_threads: Annotated[int, typer.Option(help="CPU threads of the drafter")] = 1,
    as_json: AsJson = False,
) -> None:
    """Run target and drafter here, answer the same prompts with and without the drafter, and compare."""
    import os

    from dragoman.demo import DemoConfig, run_demo

    config = DemoConfig(
        target=target,
        drafter=drafter,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        device=device,
        target_dtype=target_dtype,
        drafter_dtype=drafter_dtype,
        target_threads=target_threads or len(os.sched_getaffinity(0)),
        drafter_threads=drafter_threads,
    )
    if not run_demo(config, as_json=as_json):
        raise typer.Exit(1)


@app.command()
def verifier(
    model: Annotated[str, typer.Option(help=MODEL_HELP)],
    listen: Annotated[str, typer.Option(help="Address to serve at; port 0 takes a free one")] = LOCAL_VERIFIER,
    allow_plaintext: Annotated[bool, typer.Option(help="Serve other machines although nothing is encrypted")] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = None,
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
    adaptive: Annotated[bool, typer.Option(help="Adapt all of this to what is measured, or keep it")] = True,
    lookup: Annotated[bool, typer.Option(help="Beside the drafters, look up in prompt and text how it goes on")] = True,
    max_sessions: Annotated[int, typer.Option(help="Texts written at once, at most", min=1, max=100_000)] = 64,
    grace: Annotated[str, typer.Option(help="When stopped, texts may end for this long, then are handed over")] = "1s",
    coordinator: Coordinator = None,
    name: Annotated[str | None, typer.Option(help="Shown to people  [default: host/model]")] = None,
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
    from speculation.messages import SpeculationPlan
    from verifier_service.transformers_engine import TransformersEngine, check_target_dtype

    set_up_logging(verbose)
    check_target_dtype(dtype)
    address = listen_address(listen, allow_plaintext=allow_plaintext)
    membership = fleet_membership(coordinator, name, address, advertise)
    grace_seconds = parse_duration("grace", grace)
    wait, unsure, least = patience / 1000, alternative_threshold, verify_threshold
    plan = SpeculationPlan(
        width, lookahead, stop_threshold, span_tokens, wait, alternatives, unsure, least, draft_top_k
    )
    engine = TransformersEngine(load_model(model, device=device, dtype=dtype, threads=threads))
    serve_verifier(
        engine,
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


@app.command()
def drafter(
    model: Annotated[str, typer.Option(help=f"{MODEL_HELP}, or lookup")],
    verifier: Verifier = None,
    coordinator: Coordinator = None,
    name: Annotated[str | None, typer.Option(help="Shown to people  [default: host/model]")] = None,
    max_sessions: Annotated[int, typer.Option(help="Texts to draft for at once, at most", min=1, max=100_000)] = 4,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = None,
    ready_json: ReadyJson = False,
    verbose: Verbose = False,
) -> None:
    """Draft for a verifier, or for those that a coordinator names; dials out, and again whenever the link ends."""
    from dragoman.loading import load_drafter
    from dragoman.serve import serve_drafter, set_up_logging
    from protos.transport import COORDINATOR_PORT, DEFAULT_PORT, Address

    set_up_logging(verbose)
    if verifier is not None and coordinator is not None:
        raise InputError("verifier", verifier, "comes with --coordinator as well", remedy="give one of the two")
    field, address = ("verifier", verifier or LOCAL_VERIFIER) if coordinator is None else ("coordinator", coordinator)
    port = COORDINATOR_PORT if coordinator is not None else DEFAULT_PORT
    dialled = Address.parse(address, field=field, default_port=port)
    loaded = load_drafter(model, device=device, dtype=dtype, threads=threads)
    serve_drafter(
        loaded, dialled, fleet=coordinator is not None, name=name, max_sessions=max_sessions, ready_json=ready_json
    )


@app.command()
def generate(
    prompt: Annotated[str | None, typer.Option(help="Text to continue")] = None,
    prompt_file: Annotated[
        Path | None, typer.Option(help="File with the text to continue; - is standard input")
    ] = None,
    messages: Annotated[
        str | None, typer.Option(help="Chat: JSON list of {role, content}, or a file with one; - is standard input")
    ] = None,
    verifier: Verifier = None,
    coordinator: FleetOf = None,
    model: FleetModel = "",
    resume_for: ResumeFor = None,
    max_tokens: MaxTokens = 256,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    min_p: MinP = 0.0,
    seed: Seed = 0,
    stop: Annotated[list[str] | None, typer.Option(help="End the text before this; may be repeated")] = None,
    rule: RuleOption = RuleName.RACE,
    prediction_file: Annotated[
        Path | None, typer.Option(help="File with what the answer may be, or be made of; - is standard input")
    ] = None,
    no_draft: NoDraft = False,
    as_json: AsJson = False,
) -> None:
    """Let the target write; drafted text and its own appear in two colours."""
    from dragoman.dialling import Destination
    from dragoman.generate import read_prompt, run_generate
    from speculation.sampling import Rule, SamplingParams

    run_generate(
        Destination(verifier, coordinator, model, resume_for),
        read_prompt(prompt, prompt_file, messages),
        SamplingParams(temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, seed=seed),
        max_tokens=max_tokens,
        stop=tuple(stop or ()),
        rule=Rule(rule.value),
        draft=not no_draft,
        as_json=as_json,
        prediction_file=prediction_file,
    )


@app.command()
def chat(
    verifier: Verifier = None,
    coordinator: FleetOf = None,
    model: FleetModel = "",
    resume_for: ResumeFor = None,
    system: Annotated[str | None, typer.Option(help="System message")] = None,
    max_tokens: MaxTokens = 512,
    temperature: Temperature = 0.7,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    min_p: MinP = 0.0,
    seed: Seed = 0,
    rule: RuleOption = RuleName.RACE,
    no_draft: NoDraft = False,
) -> None:
    """Talk with the target. /reset forgets the conversation, /exit leaves."""
    from dragoman.chat import run_chat
    from dragoman.dialling import Destination
    from speculation.sampling import Rule, SamplingParams

    run_chat(
        Destination(verifier, coordinator, model, resume_for),
        SamplingParams(temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, seed=seed),
        system=system,
        max_tokens=max_tokens,
        rule=Rule(rule.value),
        draft=not no_draft,
    )


add_fleet_commands(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a DragomanError is one line and its exit code, never a traceback."""
    from dragoman.terminal import show_error

    try:
        app(arguments, auto_envvar_prefix="DRAGOMAN")
    except DragomanError as error:
        show_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
