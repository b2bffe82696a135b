"""A session as the coordinator knows it, and the drafters that could sit at its verifier. Times in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from coordinator.config import CoordinatorConfig
from coordinator.placement import Applicant, Seat, SessionKey
from coordinator.plan_orders import RESEND_SECONDS, PlanOrders
from coordinator.registry import Member
from coordinator.reports import LinkFacts, SessionFacts
from coordinator.telemetry import ENOUGH_STEPS, Credit, PairAcceptance, Trend
from speculation.planning.cost_model import PairCosts, StepCosts, predict
from speculation.planning.outlook import expected_speed_up
from speculation.planning.plan_chooser import coarse

#: A drafter that is given a session reads the prompt first: for so long, silence is no broken promise.
PROMPT_SECONDS: Final = 5.0
#: An order that is not carried out after so long was refused.
ORDER_TIMEOUT_SECONDS: Final = 2.0
#: A session's own acceptance with a drafter model that it left is remembered for so long.
_MEMORY_SECONDS: Final = 60.0
#: Where nothing is known: of a target's step, and of a drafter's token.
_ASSUMED_STEP, _ASSUMED_TOKEN = 0.03, 0.02


def drafter_of(verifier: Member, link: LinkFacts) -> str:
    """Whose capacity a link uses. A drafter that does not say which process it is stands for itself."""
    return link.instance or f"{verifier.instance}#{link.number}"


def seat_of(verifier: Member, link: LinkFacts) -> Seat:
    return Seat(verifier.instance, link.number, drafter_of(verifier, link))


@dataclass(slots=True)
class Knowledge:
    """What was learned of drafters and models, over all sessions."""

    pairs: PairAcceptance = field(default_factory=PairAcceptance)
    credits: dict[str, Credit] = field(default_factory=dict)

    def credit(self, drafter: str, now: float) -> float:
        return self.credits[drafter].value(now) if drafter in self.credits else 1.0


class FleetSession:
    """One session of one verifier, by its reports."""

    def __init__(self, verifier: Member, facts: SessionFacts, config: CoordinatorConfig, now: float) -> None:
        self.key = SessionKey(verifier.instance, facts.name)
        self.verifier = verifier
        self.facts = facts
        self.trend = Trend(samples=config.history.samples, seconds=config.history.seconds)
        self.plan_orders = PlanOrders(config.plan)
        self.wanted: tuple[Seat, ...] | None = None
        self._dwell_seconds = config.placement.dwell_seconds
        self._moved_at = now if facts.links else -config.placement.dwell_seconds
        self._asked_at = self._ordered_at = now - ORDER_TIMEOUT_SECONDS
        self._linked_at = now
        self._drafted = (0, facts.costs.drafted_steps if facts.costs else 0)  # tokens, steps: when linked
        self._own_rates: dict[str, tuple[float, float]] = {}  # by drafter model: rate, when

    @property
    def placeable(self) -> bool:
        return not self.facts.no_draft

    # ---- what is learned ----------------------------------------------------------------------------------------

    def observe_report(
        self, verifier: Member, facts: SessionFacts, knowledge: Knowledge, loads: Mapping[str, int], now: float
    ) -> None:
        """The next report. ``verifier`` may have registered again since the last one."""
        before, self.facts, self.verifier = self.facts, facts, verifier
        self.trend.observe_facts(facts, now)
        drafted_steps = facts.costs.drafted_steps if facts.costs else 0
        if set(facts.links) != set(before.links) or facts.steps < before.steps:
            self._linked_at = self._moved_at = now
            self._drafted = (facts.draft_tokens, drafted_steps)
            return
        links = verifier.verifier_facts.links
        if len(facts.links) != 1 or facts.links[0] not in links or facts.costs is None or before.costs is None:
            return  # what several drafters achieve together says little about each
        link = links[facts.links[0]]
        new_steps = drafted_steps - before.costs.drafted_steps
        if new_steps > 0 and drafted_steps - self._drafted[1] >= ENOUGH_STEPS:
            rate = _mean_rate(facts.costs)
            self._own_rates[link.model] = (rate, now)
            knowledge.pairs.observe_rate(link.model, verifier.model, rate, new_steps)
        self._judge(link, before, knowledge, loads, now)

    def _judge(
        self, link: LinkFacts, before: SessionFacts, knowledge: Knowledge, loads: Mapping[str, int], now: float
    ) -> None:
        """Set what the drafter does against what it promised."""
        facts, plan = self.facts, self.facts.plan
        steps = facts.steps - before.steps
        reads = facts.draft_tokens <= self._drafted[0] and now < self._linked_at + PROMPT_SECONDS
        costs = self.costs(loads)
        if reads or steps <= 0 or plan is None or plan != before.plan or not plan.width or costs is None:
            return
        promised = predict(coarse(costs), plan).tokens_per_step - 1
        gained = (facts.committed - before.committed) / steps - 1
        drafter = drafter_of(self.verifier, link)
        knowledge.credits.setdefault(drafter, Credit(now)).observe_gain(gained, promised, steps, now)

    # ---- what is expected ---------------------------------------------------------------------------------------

    def drafters(self) -> list[str]:
        """Those that draft for it, by instance."""
        links = self.verifier.verifier_facts.links
        return sorted({drafter_of(self.verifier, links[number]) for number in self.facts.links if number in links})

    def costs(self, loads: Mapping[str, int]) -> PairCosts | None:
        """Of it and the quickest of its drafters, which serve so many sessions each. None: too little is known."""
        links = self.verifier.verifier_facts.links
        measured = [
            (link.round_trip, link.seconds_per_token * max(1, loads.get(drafter_of(self.verifier, link), 1)))
            for number in self.facts.links
            if (link := links.get(number)) and link.round_trip is not None and link.seconds_per_token is not None
        ]
        costs = self.facts.costs
        if not measured or costs is None:
            return None
        round_trip, token = min(measured, key=lambda pair: pair[0] + 4 * pair[1])
        return PairCosts(
            step=costs.step,
            step_per_token=costs.step_per_token,
            draft_token=token,
            round_trip=round_trip,
            acceptance=costs.acceptance,
            alone_share=costs.alone_share,
        )

    def speed_up(self, link: LinkFacts, load: int, knowledge: Knowledge, now: float) -> float:
        """Over the target alone, if this link's drafter drafts for it and for ``load`` - 1 others."""
        step, per_token = _ASSUMED_STEP, 0.0
        if (costs := self.facts.costs) is not None:
            step, per_token = costs.step, costs.step_per_token
        promised = expected_speed_up(
            step=step,
            step_per_token=per_token,
            draft_token=(link.seconds_per_token or _ASSUMED_TOKEN) * load,
            round_trip=link.round_trip or 0.0,
            acceptance=self._acceptance(link.model, knowledge, now),
        )
        return 1 + knowledge.credit(drafter_of(self.verifier, link), now) * (promised - 1)

    def _acceptance(self, model: str, knowledge: Knowledge, now: float) -> float:
        """Its own with this drafter model if it is known, else that of the two models elsewhere."""
        rate, at = self._own_rates.get(model, (0.0, -_MEMORY_SECONDS))
        return rate if now < at + _MEMORY_SECONDS else knowledge.pairs.rate(model, self.verifier.model)

    # ---- what is wanted -----------------------------------------------------------------------------------------

    def applicant(self, now: float) -> Applicant:
        links = self.verifier.verifier_facts.links
        reported = [seat_of(self.verifier, links[number]) for number in self.facts.links if number in links]
        current = tuple(reported)
        if self.wanted is not None:
            if now < self._asked_at + ORDER_TIMEOUT_SECONDS:
                current = self.wanted  # the report may be older than the order
            else:
                current = tuple(sorted(reported, key=lambda seat: (seat not in (self.wanted or ()), seat)))
        seats = tuple(
            seat
            for link in links.values()
            if link.number not in self.facts.declined
            and ((seat := seat_of(self.verifier, link)) in current or link.round_trip is not None)
        )
        return Applicant(self.key, seats, current, pinned=now < self._moved_at + self._dwell_seconds)

    def place(self, seats: tuple[Seat, ...], now: float) -> tuple[int, ...] | None:
        """Take a decision; the links to be ordered, if an order is due."""
        links = tuple(sorted(seat.link for seat in seats))
        changed = self.wanted is None or set(seats) != set(self.wanted)
        self.wanted = seats
        if changed:
            self._asked_at = now
            if links != self.facts.links:
                self._moved_at = now
        elif now < self._ordered_at + RESEND_SECONDS:
            return None
        self._ordered_at = now
        return links


def _mean_rate(costs: StepCosts) -> float:
    return sum(costs.acceptance) / len(costs.acceptance)
