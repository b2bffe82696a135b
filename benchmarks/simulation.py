"""A recorded pair in virtual time: the real state machines of both sides, with a clock instead of models and sockets.

What a plan, or the adaptive planner, comes to at any speed and distance, exactly repeatable and many times faster
than waiting: for tuning, and to set what ``benchmarks/wide_area.py`` measures beside machines without noise.

    python -m benchmarks.simulation --recording recording.json --step 0.025 --token 0.003 --round-trip 40
"""

from __future__ import annotations

import heapq
import itertools
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.command import run_command
from benchmarks.plans import ARMS, looks_up, plan_of
from benchmarks.recording import load
from benchmarks.replay_drafter import ReplayDrafter, batch_seconds
from benchmarks.replay_target import ReplayEngine
from drafter_service.desk import DeskSession, Message
from speculation.planning.fits import Smoothed
from speculation.planning.plan import START
from speculation.planning.step_times import StepTimes
from speculation.protocol.messages import Prompt, SessionOffer, Span, SpeculationPlan
from speculation.protocol.session_request import SessionRequest
from speculation.sampling.params import Rule, SamplingParams
from speculation.sampling.race import RaceNoise
from speculation.sessions.instructions import Finish, Keep, SendVerdict
from speculation.sessions.target_session import TargetSession
from speculation.verification.draft_verifier import DraftVerifier
from speculation.verification.step import Step
from transport import codec
from verifier_service.engine import Slot
from verifier_service.session_planner import SessionPlanner


@dataclass(frozen=True, slots=True)
class Speeds:
    """Seconds: of a verify step, of each draft token in it, of a draft token, of the round trip. ``row``: see
    ``batch_seconds``."""

    step: float
    step_per_token: float
    token: float
    row: float
    round_trip: float


@dataclass(slots=True)
class Link:
    """The drafter as the planner knows it, measured exactly."""

    seconds_per_token: float
    round_trip: Smoothed = field(default_factory=Smoothed)

    def seconds_to_first_span(self) -> float:
        return (self.round_trip.mean or 0.0) + 4 * self.seconds_per_token


class Run:
    """One text, from the first step to the last."""

    def __init__(
        self,
        slot: Slot,
        target: TargetSession,
        verifier: DraftVerifier,
        planner: SessionPlanner,
        times: StepTimes,
        desk: DeskSession,
        speeds: Speeds,
    ) -> None:
        self.speeds, self.times = speeds, times
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.slot, self.target, self.verifier, self.planner, self.desk = slot, target, verifier, planner, desk
        self.link = Link(speeds.token)
        self.link.round_trip.observe_value(speeds.round_trip)
        self._inbox: deque[Message] = deque()
        self.bytes_up = 0
        self.batches = 0
        self._drafting = self._held = self.done = False
        self._holding_since = 0

    def at(self, seconds: float, event: Callable[[], None]) -> None:
        """In so many seconds from now."""
        heapq.heappush(self._events, (self.now + seconds, next(self._order), event))

    def seconds(self) -> float:
        """Run to the end of the text; how long it took."""
        self.at(self.speeds.round_trip / 2, self.draft)
        self.step()
        while not self.done:
            self.now, _, event = heapq.heappop(self._events)
            event()
        return self.now

    # ---- the target ---------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Begin a step with what has come."""
        self.read_inbox()
        step = self.target.next_step()
        duration = self.speeds.step + self.speeds.step_per_token * len(step.candidates)
        self.at(duration, lambda: self.end_step(step, duration))

    def end_step(self, step: Step, duration: float) -> None:
        acceptance = self.verifier.verify(step, self.slot.step(step.last, step.candidates))
        for instruction in self.target.on_acceptance(acceptance):
            match instruction:
                case Keep(rows):
                    self.slot.keep(rows)
                case Finish():
                    self.done = True
                case SendVerdict(verdict):
                    sent = verdict
        self.times.observe_step(len(step.candidates), duration, now=self.now)
        self.planner.observe_step(self.target.stats)
        if self.planner.replan(self.now, [self.link]):  # type: ignore[list-item]
            self.target.follow(self.planner.plan)
        self.at(self.speeds.round_trip / 2, lambda: self.hear(sent))
        if self.done:
            return
        if self.target.plan.patience and not self.ready():
            self._held = True
            self._holding_since += 1
            number = self._holding_since
            self.at(self.target.plan.patience, lambda: self.give_up(number))
        else:
            self.step()

    def read_inbox(self) -> None:
        while self._inbox:
            message = self._inbox.popleft()
            if isinstance(message, Span):
                self.target.on_span(message)
            else:
                verdict = self.target.on_resync(message)
                if verdict is not None:
                    self.at(self.speeds.round_trip / 2, partial(self.hear, verdict))

    def ready(self) -> bool:
        """Whether the coming step has no draft to wait for."""
        self.read_inbox()
        return self.target.ready

    def give_up(self, number: int) -> None:
        if self._held and number == self._holding_since:
            self._held = False
            self.step()

    def receive(self, message: Message) -> None:
        self._inbox.append(message)
        if self._held and self.ready():
            self._held = False
            self.step()

    # ---- the drafter --------------------------------------------------------------------------------------------

    def send(self, messages: list[Message]) -> None:
        for message in messages:
            if isinstance(message, Span):
                self.bytes_up += codec.span_to_wire("s-0123456789abcdef", message).ByteSize()
            self.at(self.speeds.round_trip / 2, partial(self.receive, message))

    def hear(self, verdict: object) -> None:
        self.send(self.desk.on_verdict(verdict))  # type: ignore[arg-type]
        self.draft()

    def draft(self) -> None:
        if self._drafting or not self.desk.wants_draft():
            return
        self._drafting = True
        drafted = self.desk.prepare().alone()
        self.batches += 1

        def end() -> None:
            self._drafting = False
            self.send(self.desk.take(drafted))
            self.draft()

        self.at(batch_seconds(self.speeds.token, self.speeds.row, len(drafted)), end)


def replayed(
    engine: ReplayEngine,
    drafter: ReplayDrafter,
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
    drafter: ReplayDrafter,
    text: int,
    speeds: Speeds,
    plan: SpeculationPlan | None,
    *,
    lookup: bool = True,
) -> float:
    """Over the target alone, which takes one step for each token."""
    run = replayed(engine, drafter, text, speeds, plan, lookup=lookup)
    return len(engine.texts[text].token_ids) * speeds.step / run.seconds()


def main(
    recording: Annotated[Path, typer.Option(help="Made by benchmarks.recording")],
    target: str = "qwen2.5-coder-1.5b",
    step: float = 0.025,
    step_per_token: float = 0.0002,
    token: float = 0.003,
    row: float = 0.15,
    round_trip: Annotated[list[int] | None, typer.Option(help="Milliseconds; may be repeated")] = None,
    arm: Annotated[list[str] | None, typer.Option()] = None,
) -> None:
    """Sweep."""
    torch.set_num_threads(1)
    texts = load(recording)
    engine = ReplayEngine(texts, target, step=0.0, step_per_token=0.0)
    drafter = ReplayDrafter(texts, token=0.0, row=0.0)
    table = Table("round trip", *(arm or ARMS))
    for trip in round_trip or (0, 10, 40, 80, 160):
        speeds = Speeds(step=step, step_per_token=step_per_token, token=token, row=row, round_trip=trip / 1000)
        ups = []
        for name in arm or ARMS:
            of_texts = [
                speed_up(engine, drafter, text, speeds, plan_of(name), lookup=looks_up(name))
                for text in range(len(texts))
            ]
            ups.append(f"{statistics.median(of_texts):.2f} {min(of_texts):.2f}")
        table.add_row(f"{trip} ms", *ups)
    Console(width=200).print(table)


if __name__ == "__main__":
    run_command(main)
