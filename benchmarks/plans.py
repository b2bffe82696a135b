"""The arms of the wide-area bench: target alone, synchronous speculation, fixed plans, the adaptive plan."""

from __future__ import annotations

from typing import Final

from speculation.errors import InputError
from speculation.protocol.messages import SpeculationPlan

ALONE: Final = "target_alone"
ADAPTIVE: Final = "adaptive"
#: The same without the target's own lookup: what the drafter alone brings.
DRAFTER_ONLY: Final = "drafter_only"
#: Widths of synchronous speculation that are tried; the best of them counts.
SYNCHRONOUS_WIDTHS: Final = (2, 4, 8)
#: Overlapped speculation with a plan that stays: width, lookahead, alternatives.
FIXED_PLANS: Final = ((4, 8, 0), (8, 16, 1), (8, 32, 3), (16, 32, 3))
ARMS: Final = (
    *(f"synchronous_{width}" for width in SYNCHRONOUS_WIDTHS),
    *("fixed_{}_{}_{}".format(*plan) for plan in FIXED_PLANS),
    DRAFTER_ONLY,
    ADAPTIVE,
)
#: Candidates less likely than this are not verified.
FIXED_VERIFY_THRESHOLD: Final = 0.05
#: Seconds; longer than any draft takes: the target waits for it.
SYNCHRONOUS_PATIENCE: Final = 5.0


def plan_of(arm: str) -> SpeculationPlan | None:
    """The plan that an arm keeps; None for the adaptive ones, which begin with the verifier's own.

    ``fixed_W_L_A``: width, lookahead, alternatives. ``synchronous_W``: draft W tokens, send them, wait for the verdict.
    Raises InputError.
    """
    if arm in (ADAPTIVE, DRAFTER_ONLY):
        return None
    kind, *words = arm.split("_")
    numbers = [int(word) for word in words if word.isdecimal()]
    if len(numbers) == len(words):
        if kind == "fixed" and len(numbers) == 3:
            width, lookahead, alternatives = numbers
            threshold = FIXED_VERIFY_THRESHOLD
            return SpeculationPlan(
                width=width,
                lookahead=lookahead,
                stop_threshold=0.001,
                span_tokens=1,
                patience=0.0,
                alternatives=alternatives,
                verify_threshold=threshold,
            )
        if kind == "synchronous" and len(numbers) == 1:
            (width,) = numbers
            return SpeculationPlan(width, width, 0.0, span_tokens=width, patience=SYNCHRONOUS_PATIENCE)
    raise InputError("arm", arm, "is not known", remedy=f"use one of {', '.join(ARMS)}")


def plan_options(arm: str) -> list[str]:
    """The same as options of the verifier. Synchronous speculation is the classic kind, without a lookup."""
    plan = plan_of(arm)
    if plan is None:
        return ["--adaptive", "--lookup" if looks_up(arm) else "--no-lookup"]
    return [
        "--no-adaptive",
        "--lookup" if looks_up(arm) else "--no-lookup",
        f"--width={plan.width}",
        f"--lookahead={plan.lookahead}",
        f"--stop-threshold={plan.stop_threshold}",
        f"--span-tokens={plan.span_tokens}",
        f"--alternatives={plan.alternatives}",
        f"--alternative-threshold={plan.alternative_threshold}",
        f"--verify-threshold={plan.verify_threshold}",
        f"--patience={round(plan.patience * 1000)}",
    ]


def looks_up(arm: str) -> bool:
    """Whether the target looks up by itself how its text goes on."""
    return arm == ADAPTIVE or arm.startswith("fixed_")
