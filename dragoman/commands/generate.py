"""The options of `dragoman generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dragoman.fleet_cli import FleetModel, FleetOf, ResumeFor
from dragoman.options import (
    AsJson,
    Choice,
    Grammar,
    JsonSchema,
    Logprobs,
    MaxTokens,
    MinP,
    NoDraft,
    PredictionFile,
    Priority,
    Regex,
    RuleName,
    RuleOption,
    Seed,
    SpecialTokens,
    Stop,
    Temperature,
    TemplateKwargs,
    TopK,
    TopP,
    Verifier,
)
from dragoman.security_options import secured
from transport.security import Security


@secured
def generate(
    prompt: Annotated[str | None, typer.Option(help="Text to continue")] = None,
    prompt_file: Annotated[Path | None, typer.Option(help="File with that text; - is standard input")] = None,
    messages: Annotated[
        str | None, typer.Option(help="Chat: JSON list of {role, content}, or a file with one; - is standard input")
    ] = None,
    special_tokens: SpecialTokens = False,
    chat_template_kwargs: TemplateKwargs = "",
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
    stop: Stop = None,
    rule: RuleOption = RuleName.RACE,
    prediction_file: PredictionFile = None,
    json_schema: JsonSchema = None,
    regex: Regex = None,
    choice: Choice = None,
    grammar: Grammar = None,
    logprobs: Logprobs = None,
    no_draft: NoDraft = False,
    priority: Priority = 0,
    as_json: AsJson = False,
    *,
    security: Security,
) -> None:
    """Let the target write; drafted text and its own appear in two colours."""
    from dragoman.dialling import Destination
    from dragoman.generate import read_guide, read_prompt, run_generate
    from speculation.sampling.params import Rule, SamplingParams

    run_generate(
        Destination(verifier=verifier, coordinator=coordinator, model=model, resume_for=resume_for, security=security),
        read_prompt(prompt, prompt_file, messages, template_kwargs=chat_template_kwargs, special_tokens=special_tokens),
        SamplingParams(temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, seed=seed),
        max_tokens=max_tokens,
        stop=tuple(stop or ()),
        rule=Rule(rule.value),
        draft=not no_draft,
        priority=priority,
        as_json=as_json,
        prediction_file=prediction_file,
        guide=read_guide(json_schema, regex, choice, grammar),
        logprobs=logprobs,
    )
