"""Every verification rule on real models in virtual time: speed beside acceptance, exactly repeatable.

The models say what they really say; what their forward passes take is given, in seconds, so that other work on the
machine moves no figure. The two sides have a processor each. See ``benchmarks/rules_speed.py`` for the clock's word.

    python -m benchmarks.rules_simulation --step 0.105 --token 0.022 --temperature 0.7
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.command import run_command
from benchmarks.prompts import load_prompts
from benchmarks.virtual_run import Run, Speeds
from drafter_service.desk import DeskSession
from drafter_service.model_drafter import ModelDrafter
from language_models.causal_lm import CausalLM
from speculation.planning.plan import START
from speculation.planning.step_times import StepTimes
from speculation.protocol.messages import Prompt, SessionOffer
from speculation.protocol.session_request import SessionRequest
from speculation.sampling.params import Rule, SamplingParams
from speculation.sampling.race import RaceNoise
from speculation.sessions.target_session import TargetSession
from speculation.text.vocab_table import table_of
from speculation.verification.draft_verifier import DraftVerifier
from speculation.verification.string_rejection import ENUMERATION_COST
from verifier_service.session_planner import SessionPlanner
from verifier_service.transformers_engine import TransformersEngine


class Pair:
    """Both models in this process. ``times``: of a verifier's steps, all texts of a rule together."""

    def __init__(self, target: CausalLM, drafter: CausalLM) -> None:
        self.engine = TransformersEngine(target)
        self.drafter = ModelDrafter(drafter)
        self.vocab = target.tokenizer.vocab
        self.noise = RaceNoise(self.vocab)
        if self.vocab.content_hash != self.drafter.vocab_hash:
            self.drafter.learn_vocabulary(self.vocab.content_hash, table_of(self.vocab))

    def run(
        self, prompt: Prompt, rule: Rule, sampling: SamplingParams, speeds: Speeds, times: StepTimes, *, tokens: int
    ) -> Run:
        """One text, ready to start, with the adaptive plan."""
        engine = self.engine
        planner = SessionPlanner(START, times, adaptive=True, rule=rule)
        ids = tuple(engine.tokenizer.prompt_ids(prompt))
        request = SessionRequest(
            prompt_ids=ids,
            sampling=sampling,
            max_tokens=tokens,
            context_length=engine.context_length,
            rule=rule,
            ignore_end=True,
        )
        verifier = DraftVerifier.of(request, self.vocab, self.noise)
        target = TargetSession(
            request,
            self.vocab,
            engine.tokenizer.encode,
            plan=planner.plan,
            lookup=True,
            free=engine.free_draft_tokens,
            widest=engine.max_draft_tokens,
        )
        offer = SessionOffer(
            session="s",
            prompt=prompt,
            sampling=sampling,
            rule=rule,
            committed=b"",
            zero_width=0,
            plan=planner.plan,
            number=1,
            vocab_hash=self.vocab.content_hash,
        )
        cost = ENUMERATION_COST if rule is Rule.STRING_REJECTION else 1.0
        real = replace(speeds, token=speeds.token * cost)
        run = Run(
            slot=engine.open(ids),
            target=target,
            verifier=verifier,
            planner=planner,
            times=times,
            desk=DeskSession(self.drafter, offer),
            speeds=real,
        )
        run.link.seconds_per_token = speeds.token  # what a drafter tells of itself
        return run


def figures(
    pair: Pair, rule: Rule, prompts: list[Prompt], speeds: Speeds, *, temperature: float, tokens: int
) -> dict[str, float]:
    """Of one rule, over all prompts."""
    sums: dict[str, float] = defaultdict(float)
    worst, times = float("inf"), StepTimes(learns=False)
    for seed, prompt in enumerate(prompts):
        run = pair.run(prompt, rule, SamplingParams(temperature=temperature, seed=seed), speeds, times, tokens=tokens)
        seconds, stats = run.seconds(), run.target.stats
        written = len(run.target.token_ids)
        worst = min(worst, written * speeds.step / seconds)
        counted = {
            "tokens": written,
            "seconds": seconds,
            "steps": stats.steps,
            "draft_tokens": stats.draft_tokens,
            "accepted_tokens": stats.accepted_tokens,
            "batches": run.batches,
            "bytes": run.bytes_up,
        }
        for key, value in counted.items():
            sums[key] += value
    return {
        "speed_up": sums["tokens"] * speeds.step / sums["seconds"],
        "worst_speed_up": worst,
        "acceptance_rate": sums["accepted_tokens"] / max(sums["draft_tokens"], 1.0),
        "mean_acceptance_length": sums["tokens"] / sums["steps"],
        "draft_tokens_per_step": sums["draft_tokens"] / sums["steps"],
        "batches_per_token": sums["batches"] / sums["tokens"],
        "bytes_per_token": sums["bytes"] / sums["tokens"],
    }


def main(
    target: str = "qwen2.5-coder-1.5b",
    drafter: str = "smollm2-135m",
    step: float = 0.105,
    step_per_token: float = 0.001,
    token: float = 0.022,
    row: float = 0.15,
    round_trip: float = 0.001,
    temperature: float = 0.7,
    rule: Annotated[list[str] | None, typer.Option(help="May be repeated  [default: all]")] = None,
    prompts: Annotated[Path | None, typer.Option(help="JSONL with prompt or messages in each line")] = None,
    task: str = "",
    limit: int = 4,
    max_tokens: int = 64,
    threads: int = 1,
) -> None:
    """Compare the rules at given speeds."""
    console = Console(stderr=True)
    pair = Pair(CausalLM.load(target, threads=threads), CausalLM.load(drafter, threads=threads, dtype="int8"))
    speeds = Speeds(step=step, step_per_token=step_per_token, token=token, row=row, round_trip=round_trip)
    asked = load_prompts(prompts, limit=limit, task=task)
    table = Table("rule", title=f"{drafter} -> {target}, temperature {temperature:g}, in virtual time")
    headings = ("speed-up\n(worst)", "accepted", "tokens\nper step", "drafted\nper step", "drafter's\nbatches", "bytes")
    for heading in headings:
        table.add_column(heading, justify="right")
    found = {}
    for name in rule or [each.value for each in Rule.concrete()]:
        row_of = figures(pair, Rule(name), asked, speeds, temperature=temperature, tokens=max_tokens)
        found[name] = row_of
        table.add_row(
            name,
            f"{row_of['speed_up']:.2f} ({row_of['worst_speed_up']:.2f})",
            f"{row_of['acceptance_rate']:.0%}",
            f"{row_of['mean_acceptance_length']:.2f}",
            f"{row_of['draft_tokens_per_step']:.1f}",
            f"{row_of['batches_per_token']:.1f}",
            f"{row_of['bytes_per_token']:.0f}",
        )
    console.print(table)
    print(json.dumps({"target": target, "drafter": drafter, "temperature": temperature, "rules": found}))


if __name__ == "__main__":
    run_command(main)
