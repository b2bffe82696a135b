"""Whole texts of an ``EnumeratedRun`` by their probabilities, held against the target's own distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from speculation.protocol.messages import SpeculationPlan
from speculation.sampling.params import Rule, SamplingParams
from tests.support.branching import Chooser, distribution, largest_gap
from tests.support.enumerated_run import EnumeratedRun
from tests.support.listed_guide import allowed_after
from tests.support.tiny_pairs import TinyPair, true_sequences

#: Sums of floats over everything that can happen stray from the truth by less than this.
EXACT = 1e-12
PROPOSING = [Rule.REJECTION, Rule.STRING_REJECTION]
SETTINGS = {
    "plain": SamplingParams(temperature=1.0),
    "greedy": SamplingParams(),
    "all settings": SamplingParams(1.3, top_k=4, top_p=0.95, presence_penalty=0.4, frequency_penalty=0.3),
}
PLAN = SpeculationPlan(width=2, lookahead=2, stop_threshold=0.0)


def session_gap(
    pair: TinyPair,
    rule: Rule,
    schedule: str,
    *,
    length: int = 3,
    run: type[EnumeratedRun] = EnumeratedRun,
    params: SamplingParams | None = None,
    plan: SpeculationPlan = PLAN,
    ignore_end: bool = False,
    texts: Sequence[bytes] = (),
    **settings: Any,
) -> float:
    """The largest difference of a session to the target at one text. ``texts``: the only ones allowed, all if empty.
    ``settings``: further ones of ``run``."""
    chosen, vocab = params or SETTINGS["plain"], pair.target.vocab

    def play(chooser: Chooser) -> tuple[int, ...]:
        made = run(
            pair, rule, chosen, chooser, length=length, plan=plan, ignore_end=ignore_end, texts=texts, **settings
        )
        return made.play(schedule)

    found = distribution(play)
    allowed = (lambda text: allowed_after(text, texts, vocab)) if texts else None
    truth = true_sequences(pair.target, chosen, length, stop_at_end=not ignore_end, allowed=allowed)
    return largest_gap(found, truth)
