"""One text in virtual time: the real state machines of both sides, with a clock in place of models and sockets."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from benchmarks.replay_drafter import batch_seconds
from drafter_service.desk import DeskSession, Message
from speculation.planning.fits import Smoothed
from speculation.planning.step_times import StepTimes
from speculation.protocol.messages import Span
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
    ``batch_seconds``. ``span``: seconds that a span which came makes the next step longer."""

    step: float
    step_per_token: float
    token: float
    row: float
    round_trip: float
    span: float = 0.0


@dataclass(slots=True)
class Link:
    """The drafter as the planner knows it, measured exactly."""

    seconds_per_token: float
    round_trip: Smoothed = field(default_factory=Smoothed)

    @property
    def seconds_per_token_alone(self) -> float:
        """There is one session."""
        return self.seconds_per_token

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
        self._spans = 0  # that came before the last step
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
        came, self._spans = self.target.stats.spans - self._spans, self.target.stats.spans
        step = self.target.next_step()
        duration = self.speeds.step + self.speeds.step_per_token * len(step.candidates) + self.speeds.span * came
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
