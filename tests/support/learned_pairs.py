"""What a verifier learns of a target and a drafter, put together for a plan: the fits as the services use them."""

from __future__ import annotations

from speculation.planning.cost_model import PairCosts
from speculation.planning.fits import AcceptanceByPosition, LinearFit, Smoothed

POSITIONS = 4


class LearnedPair:
    """Observations in, costs out."""

    def __init__(self) -> None:
        self.verify = LinearFit()
        self.draft_token, self.round_trip = Smoothed(), Smoothed()
        self.acceptance = AcceptanceByPosition()

    def observe_step(self, draft_tokens: int, accepted: int, seconds: float) -> None:
        """A verify step with so many draft tokens."""
        self.verify.observe_point(draft_tokens, seconds)
        self.acceptance.observe_step(draft_tokens, accepted)

    def costs(self) -> PairCosts | None:
        """None until a step and a drafter's token were seen. An unknown round trip counts 0."""
        if not self.verify.seen or self.draft_token.mean is None:
            return None
        return PairCosts(
            step=self.verify.line[0],
            step_per_token=self.verify.line[1],
            draft_token=self.draft_token.mean,
            round_trip=self.round_trip.mean or 0.0,
            acceptance=self.acceptance.rates(POSITIONS),
        )
