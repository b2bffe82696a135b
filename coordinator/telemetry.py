"""What the coordinator learns from checked reports: speeds, agreement, and whose word is worth how much.

Times in seconds of the coordinator's own clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from coordinator.reports import LinkFacts, SessionFacts

#: Rates shown and judged are those of so many last seconds.
WINDOW_SECONDS: Final = 3.0
#: Acceptance before anything was measured, as in speculation/planning/fits.py.
PRIOR_ACCEPTANCE: Final = 0.6
#: Drafted steps after which a session's own acceptance counts more than that of its models.
ENOUGH_STEPS: Final = 16
#: Per drafted step, of the figure of a pair of models; per step, of a drafter's credit.
_PAIR_DECAY, _CREDIT_DECAY = 0.99, 0.99
#: Steps' worth of good faith that a drafter begins with, and seconds in which half of its record is forgotten.
_GOOD_FAITH: Final = 8.0
_HALF_LIFE: Final = 60.0
#: Pairs of models remembered. Names are told by members, so there is a bound.
_PAIRS: Final = 1024
#: The cost model may promise a quarter too much before a drafter is blamed.
_TOLERANCE: Final = 1.25


class Rate:
    """Events per second of the last seconds, from a running total that may begin anew."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def observe_total(self, total: int, now: float) -> None:
        if self._seen and total < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now, total))
        while len(self._seen) > 2 and self._seen[1][0] <= now - WINDOW_SECONDS:
            self._seen.popleft()

    @property
    def per_second(self) -> float:
        if len(self._seen) < 2 or self._seen[-1][0] <= self._seen[0][0]:
            return 0.0
        return (self._seen[-1][1] - self._seen[0][1]) / (self._seen[-1][0] - self._seen[0][0])


class LinkRates:
    """Draft tokens verified and accepted per second, of each stream of drafters to one verifier."""

    def __init__(self) -> None:
        self._rates: dict[int, tuple[Rate, Rate]] = {}

    def observe_links(self, links: Mapping[int, LinkFacts], now: float) -> None:
        """A report. Streams that ended are forgotten."""
        self._rates = {number: self._rates.get(number) or (Rate(), Rate()) for number in links}
        for number, (drafted, accepted) in self._rates.items():
            drafted.observe_total(links[number].draft_tokens, now)
            accepted.observe_total(links[number].accepted, now)

    def of(self, link: int) -> tuple[float, float]:
        """Those of a stream: verified, accepted."""
        if link not in self._rates:
            return 0.0, 0.0
        drafted, accepted = self._rates[link]
        return drafted.per_second, accepted.per_second


@dataclass(frozen=True, slots=True)
class _Sample:
    time: float
    committed: int
    steps: int
    draft_tokens: int
    accepted: int


class Trend:
    """A session's last seconds, and the history of its drafters' acceptance rate: ``samples``, ``seconds`` apart."""

    def __init__(self, *, samples: int, seconds: float) -> None:
        self._recent: deque[_Sample] = deque()
        self._seconds = seconds
        self._next = 0.0
        self.history: deque[float] = deque(maxlen=samples)

    def observe_facts(self, facts: SessionFacts, now: float) -> None:
        sample = _Sample(
            time=now,
            committed=facts.committed,
            steps=facts.steps,
            draft_tokens=facts.draft_tokens,
            accepted=facts.accepted,
        )
        if self._recent and _goes_back(self._recent[-1], sample):
            self._recent.clear()
        if not self._recent:
            self._next = now + self._seconds
        self._recent.append(sample)
        while len(self._recent) > 2 and self._recent[1].time <= now - WINDOW_SECONDS:
            self._recent.popleft()
        # Reports come when they come; the samples of the history lie evenly all the same.
        missed = 0 if now < self._next else 1 + int((now - self._next) / self._seconds)
        self._next += missed * self._seconds
        if missed and (self.history or facts.draft_tokens):
            self.history.extend([self.acceptance_rate or 0.0] * min(missed, self.history.maxlen or 0))

    @property
    def tokens_per_second(self) -> float:
        seconds = self._recent[-1].time - self._recent[0].time if self._recent else 0.0
        return self._difference("committed") / seconds if seconds > 0 else 0.0

    @property
    def tokens_per_step(self) -> float:
        """Mean acceptance length, the target's own token counted; 0 before the first step."""
        steps = self._difference("steps")
        return self._difference("committed") / steps if steps else 0.0

    @property
    def draft_tokens(self) -> int:
        """Verified in the last seconds."""
        return self._difference("draft_tokens")

    @property
    def accepted(self) -> int:
        """Of ``draft_tokens``."""
        return self._difference("accepted")

    @property
    def acceptance_rate(self) -> float | None:
        return self.accepted / self.draft_tokens if self.draft_tokens else None

    def _difference(self, name: str) -> int:
        if not self._recent:
            return 0
        first, last = self._recent[0], self._recent[-1]
        # A session whose only report so far is this one: since its beginning.
        return int(getattr(last, name) - (getattr(first, name) if last is not first else 0))


def _goes_back(before: _Sample, after: _Sample) -> bool:
    return any(getattr(after, name) < getattr(before, name) for name in ("committed", "steps", "draft_tokens"))


class PairAcceptance:
    """How often a drafter model's tokens are accepted by a target model, over all their sessions."""

    def __init__(self) -> None:
        self._rates: dict[tuple[str, str], float] = {}

    def observe_rate(self, drafter: str, target: str, rate: float, steps: int) -> None:
        """``steps`` more steps with drafts, in a session where now ``rate`` of the tokens agree."""
        before = self._rates.get((drafter, target), PRIOR_ACCEPTANCE)
        if len(self._rates) >= _PAIRS and (drafter, target) not in self._rates:
            del self._rates[next(iter(self._rates))]
        self._rates[drafter, target] = rate + _PAIR_DECAY**steps * (before - rate)

    def rate(self, drafter: str, target: str) -> float:
        return self._rates.get((drafter, target), PRIOR_ACCEPTANCE)


class Credit:
    """How much of a drafter's promise came true, 0..1.

    Round trip and acceptance are measured by verifiers, but the time per token is the drafter's own word. So what its
    sessions gain, in tokens per step beyond the target's own one, is set against what the cost model makes of that
    word. A drafter that says it is fast and is not drops towards 0, and cannot win sessions by saying so. What is not
    observed any more is forgotten: it gets another chance.
    """

    def __init__(self, now: float) -> None:
        self._gained = self._promised = 0.0
        self._at = now

    def observe_gain(self, gained: float, promised: float, steps: int, now: float) -> None:
        """In ``steps`` steps the session gained so many tokens per step, where so many were promised."""
        keep = self._kept(now) * _CREDIT_DECAY**steps
        share = (1 - _CREDIT_DECAY**steps) / (1 - _CREDIT_DECAY)
        self._gained = keep * self._gained + share * max(gained, 0.0)
        self._promised = keep * self._promised + share * max(promised, 0.0)
        self._at = now

    def value(self, now: float) -> float:
        kept = self._kept(now)
        return min(1.0, _TOLERANCE * (_GOOD_FAITH + kept * self._gained) / (_GOOD_FAITH + kept * self._promised))

    def _kept(self, now: float) -> float:
        return float(0.5 ** (max(now - self._at, 0.0) / _HALF_LIFE))
