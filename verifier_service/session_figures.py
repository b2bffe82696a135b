"""What is measured of one session beside its counts: times, bytes on the wire, changes of the plan."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator

from speculation.protocol.generation import PlanChange, SourceStats, SpeculationStats
from speculation.protocol.messages import SpeculationPlan
from speculation.sampling.params import Rule
from speculation.sessions.statistics import SessionStats
from verifier_service.session_run import StepResult


class SessionFigures:
    """``plan``: the one that the session begins with. Seconds throughout."""

    #: Changes of the plan that are remembered.
    PLAN_CHANGES = 500

    def __init__(self, plan: SpeculationPlan) -> None:
        self.bytes_up = 0  # of messages from drafters, and to them
        self.bytes_down = 0
        self.verify_seconds = 0.0
        self.decode_seconds = 0.0  # from the end of the first step on
        self.decode_tokens = 0
        #: When its prompt was first run, by the steady clock; and whether it has KV memory, or is given it.
        self.began_at: float | None = None
        self.runs = False
        #: Told of that in the engine's thread, before and after.
        self.on_begun: Callable[[], None] = lambda: None
        self._opened_at = time.monotonic()
        self._plans = [PlanChange(0, 0.0, plan)]
        self._overheads: list[float] = []
        self._forward_ended: float | None = None
        self._step_ended: float | None = None

    def plan_changed(self, plan: SpeculationPlan, committed_tokens: int) -> None:
        """From the coming step on."""
        if len(self._plans) < self.PLAN_CHANGES:
            self._plans.append(PlanChange(committed_tokens, time.monotonic() - self._opened_at, plan))

    @contextlib.contextmanager
    def beginning(self) -> Iterator[None]:
        """The session has its turn: within the block it is given memory, and its prompt is run, or run again."""
        self.runs = True
        if self.began_at is None:
            self.began_at = time.monotonic()
        self.on_begun()
        yield
        self.on_begun()

    def preempted(self) -> None:
        """The session waits for something else than a step: what comes until the next one is no step's time."""
        self.runs = False
        self._forward_ended = self._step_ended = None

    def replayed(self, result: StepResult) -> None:
        """A step of a replay ended; of it nothing counts."""
        self._forward_ended = result.forward_ended

    def stepped(self, result: StepResult, tokens: int, *, held: float) -> float | None:
        """A step ended that committed so many tokens and was ``held`` back before it began.

        Returns the time since the step before it, None for the first.
        """
        self.verify_seconds += result.forward_seconds
        if self._forward_ended is not None:
            self._overheads.append(result.forward_began - self._forward_ended - held)
        self._forward_ended = now = result.forward_ended
        seconds = now - self._step_ended if self._step_ended is not None else None
        self._step_ended = now
        if seconds is not None:
            self.decode_seconds += seconds
            self.decode_tokens += tokens
        return seconds

    def stats(
        self, stats: SessionStats, rule: Rule, sources: tuple[SourceStats, ...], *, drafters_connected: int
    ) -> SpeculationStats:
        """All that the client is told. ``drafters_connected``: to the verifier."""
        return SpeculationStats(
            steps=stats.steps,
            draft_tokens=stats.draft_tokens,
            accepted_tokens=stats.accepted_tokens,
            spans=stats.spans,
            stale_spans=stats.stale_spans,
            bytes_up=self.bytes_up,
            bytes_down=self.bytes_down,
            accepted_tokens_per_pos=tuple(stats.accepted_per_pos),
            verify_seconds=self.verify_seconds,
            overhead_p50_seconds=statistics.median(self._overheads) if self._overheads else 0.0,
            plans=tuple(self._plans),
            rule=rule,
            sources=sources,
            drafters_connected=drafters_connected,
        )
