"""A recorded pair in virtual time: the real state machines of both sides, with a clock instead of models and sockets.

What a plan, or the adaptive planner, comes to at any speed and distance, exactly repeatable and many times faster
than waiting: for tuning, and to set what ``benchmarks/wide_area.py`` measures beside machines without noise.

    python -m benchmarks.simulation --recording recording.json --step 0.025 --token 0.003 --round-trip 40

With ``--drafter`` a real model drafts, on a device or the CPU, after the prompts that the recording was made of: then
it knows what follows what it guessed wrong, too. It may take its time; what counts is ``--token``.
"""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.command import run_command
from benchmarks.plans import ARMS, looks_up, plan_of
from benchmarks.prompts import load_prompts
from benchmarks.recording import load
from benchmarks.replay_drafter import ReplayDrafter
from benchmarks.replay_target import ReplayEngine, number_of
from benchmarks.virtual_run import Run, Speeds
from drafter_service.desk import DeskSession
from drafter_service.draft_source import Drafter, DraftSource
from drafter_service.loading import load_drafter
from speculation.errors import InputError
from speculation.planning.plan import START
from speculation.planning.step_times import StepTimes
from speculation.protocol.messages import Prompt, SessionOffer, SpeculationPlan
from speculation.protocol.session_request import SessionRequest
from speculation.sampling.params import Rule, SamplingParams
from speculation.sampling.race import RaceNoise
from speculation.sessions.target_session import TargetSession
from speculation.verification.draft_verifier import DraftVerifier
from verifier_service.session_planner import SessionPlanner


class LiveDrafter:
    """A real drafter, which is offered the prompt itself where the replayed target has its number."""

    def __init__(self, drafter: Drafter, engine: ReplayEngine, prompts: list[Prompt]) -> None:
        self.model_name, self.vocab_size, self.vocab_hash = drafter.model_name, drafter.vocab_size, drafter.vocab_hash
        self._drafter, self._engine, self._prompts = drafter, engine, prompts

    def open(self, offer: SessionOffer) -> DraftSource:
        """Raises as the drafter."""
        prompt = self._prompts[number_of(offer.prompt, self._engine.texts)]
        return self._drafter.open(dataclasses.replace(offer, prompt=prompt))

    def measure(self) -> float:
        """Seconds a token, in real time."""
        return self._drafter.measure()


def replayed(
    engine: ReplayEngine,
    drafter: Drafter,
    text: int,
    speeds: Speeds,
    plan: SpeculationPlan | None,
    *,
    lookup: bool = True,
) -> Run:
    """A recorded text."""
    prompt_ids = engine.texts[text].prompt_ids
    start = plan or START
    times = StepTimes(learns=False)
    planner = SessionPlanner(start, times, adaptive=plan is None)
    sampling, length = SamplingParams(), len(engine.texts[text].token_ids)
    request = SessionRequest(
        prompt_ids=tuple(prompt_ids), sampling=sampling, max_tokens=length, context_length=engine.context_length
    )
    vocab = engine.tokenizer.vocab
    verifier = DraftVerifier.of(request, vocab, RaceNoise(vocab, device="cpu"))
    target = TargetSession(request, vocab, engine.tokenizer.encode, plan=start, lookup=lookup)
    offer = SessionOffer(
        session="s",
        prompt=Prompt(text=str(text)),
        sampling=sampling,
        rule=Rule.RACE,
        committed=b"",
        zero_width=0,
        plan=start,
    )
    return Run(
        slot=engine.open(prompt_ids),
        target=target,
        verifier=verifier,
        planner=planner,
        times=times,
        desk=DeskSession(drafter, offer),
        speeds=speeds,
    )


def speed_up(
    engine: ReplayEngine,
    drafter: Drafter,
    text: int,
    speeds: Speeds,
    plan: SpeculationPlan | None,
    *,
    lookup: bool = True,
) -> float:
    """Over the target alone, which takes one step for each token."""
    run = replayed(engine, drafter, text, speeds, plan, lookup=lookup)
    seconds = run.seconds()
    run.desk.close()
    return len(engine.texts[text].token_ids) * speeds.step / seconds


def main(
    recording: Annotated[Path, typer.Option(help="Made by benchmarks.recording")],
    target: str = "qwen2.5-coder-1.5b",
    step: float = 0.025,
    step_per_token: float = 0.0002,
    token: float = 0.003,
    row: float = 0.15,
    span: Annotated[float, typer.Option(help="Seconds that a span which came makes a step longer")] = 0.0,
    round_trip: Annotated[list[int] | None, typer.Option(help="Milliseconds; may be repeated")] = None,
    arm: Annotated[list[str] | None, typer.Option()] = None,
    drafter: Annotated[str, typer.Option(help="A model that drafts  [default: the recorded one]")] = "",
    device: Annotated[str, typer.Option(help="The drafter's")] = "cpu",
    prompts: Annotated[Path | None, typer.Option(help="Those of the recording, for the drafter")] = None,
    task: str = "",
) -> None:
    """Sweep."""
    torch.set_num_threads(1)
    texts = load(recording)
    engine = ReplayEngine(texts, target, step=0.0, step_per_token=0.0)
    drafting: Drafter = ReplayDrafter(texts, token=0.0, row=0.0)
    if drafter:
        asked = load_prompts(prompts, limit=len(texts), task=task)
        if len(asked) < len(texts):
            raise InputError("prompts", prompts, f"has {len(asked)} prompts for {len(texts)} recorded texts")
        drafting = LiveDrafter(load_drafter(drafter, device=device), engine, asked)
    table = Table("round trip", *(arm or ARMS))
    for trip in round_trip or (0, 10, 40, 80, 160):
        speeds = Speeds(
            step=step, step_per_token=step_per_token, token=token, row=row, round_trip=trip / 1000, span=span
        )
        ups = []
        for name in arm or ARMS:
            of_texts = [
                speed_up(engine, drafting, text, speeds, plan_of(name), lookup=looks_up(name))
                for text in range(len(texts))
            ]
            ups.append(f"{statistics.median(of_texts):.2f} {min(of_texts):.2f}")
        table.add_row(f"{trip} ms", *ups)
    Console(width=200).print(table)


if __name__ == "__main__":
    run_command(main)
