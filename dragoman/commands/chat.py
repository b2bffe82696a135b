"""The options of `dragoman chat`."""

from __future__ import annotations

from typing import Annotated

import typer

from dragoman.fleet_cli import FleetModel, FleetOf, ResumeFor
from dragoman.options import (
    MaxTokens,
    MinP,
    NoDraft,
    RuleName,
    RuleOption,
    Seed,
    Temperature,
    TemplateKwargs,
    TopK,
    TopP,
    Verifier,
)
from dragoman.security_options import secured
from transport.security import Security


@secured
def chat(
    verifier: Verifier = None,
    coordinator: FleetOf = None,
    model: FleetModel = "",
    resume_for: ResumeFor = None,
    system: Annotated[str | None, typer.Option(help="System message")] = None,
    chat_template_kwargs: TemplateKwargs = "",
    max_tokens: MaxTokens = 512,
    temperature: Temperature = 0.7,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    min_p: MinP = 0.0,
    seed: Seed = 0,
    rule: RuleOption = RuleName.RACE,
    no_draft: NoDraft = False,
    no_history: Annotated[
        bool, typer.Option("--no-history", help="Keep what is typed out of chat_history, in the cache folder")
    ] = False,
    *,
    security: Security,
) -> None:
    """Talk with the target. Ctrl-C ends an answer, Ctrl-D leaves, /help lists the commands."""
    from dragoman.chat import run_chat
    from dragoman.dialling import Destination
    from speculation.sampling.params import Rule, SamplingParams

    run_chat(
        Destination(verifier=verifier, coordinator=coordinator, model=model, resume_for=resume_for, security=security),
        SamplingParams(temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, seed=seed),
        system=system,
        template_kwargs=chat_template_kwargs,
        max_tokens=max_tokens,
        rule=Rule(rule.value),
        draft=not no_draft,
        history=not no_history,
    )
