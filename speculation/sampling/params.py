"""How a session's tokens are chosen: the sampling settings and the verification rule.

Invariant: a ``SamplingParams`` that exists is valid, so nothing after it checks ranges again.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from speculation.errors import InputError
from speculation.frozen_map import FrozenMap

MAX_SEED = 2**64 - 1


class Rule(enum.StrEnum):
    """How drafts are verified (see ``speculation.verification.rules``). ``AUTO`` asks for one of the others."""

    RACE = "race"
    EXACT = "exact"
    REJECTION = "rejection"
    STRING_REJECTION = "string-rejection"
    AUTO = "auto"

    @classmethod
    def concrete(cls) -> tuple[Rule, ...]:
        """The rules that a session can run."""
        return tuple(rule for rule in cls if rule is not cls.AUTO)

    @property
    def proposes(self) -> bool:
        """Whether the drafter sends the distribution that it drew from with each draft token."""
        return self in (Rule.REJECTION, Rule.STRING_REJECTION)

    @property
    def resumable(self) -> bool:
        """Whether a text depends on prompt, settings and seed only: any verifier can go on with it."""
        return self in (Rule.RACE, Rule.EXACT)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


#: field, test, the same in words, remedy
_RANGES: tuple[tuple[str, Callable[[Any], bool], str, str], ...] = (
    ("temperature", lambda t: t >= 0, "a finite number, 0 or more", "0 is greedy, 1 the model's own distribution"),
    ("top_k", lambda k: _is_int(k) and 0 <= k < 1 << 32, "a whole number in 0..2**32-1", "0 turns it off"),
    ("top_p", lambda p: 0 < p <= 1, "a number above 0 and at most 1", "1 turns it off"),
    ("min_p", lambda p: 0 <= p <= 1, "a number in 0..1", "0 turns it off"),
    ("repetition_penalty", lambda r: r > 0, "a finite number above 0", "1 turns it off"),
    ("presence_penalty", lambda p: -2 <= p <= 2, "a number in -2..2", "0 turns it off"),
    ("frequency_penalty", lambda p: -2 <= p <= 2, "a number in -2..2", "0 turns it off"),
    ("seed", lambda s: _is_int(s) and 0 <= s <= MAX_SEED, "a whole number in 0..2**64-1", "leave it out for 0"),
)


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Settings of one request; the meanings, and the neutral values, are those of vLLM.

    temperature: 0 is greedy. top_k: 0 is off. top_p: in (0, 1], 1 is off. min_p: in [0, 1], 0 is off.
    repetition_penalty: above 0, 1 is off. presence_penalty, frequency_penalty: in [-2, 2], 0 is off.
    logit_bias: token id -> what is added to its logit. seed: unsigned, 64 bits.

    Raises InputError, naming the field, for any other value.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=FrozenMap)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, fits, range_, remedy in _RANGES:
            value = getattr(self, name)
            if not _is_number(value) or not fits(value):
                raise InputError(name, value, f"must be {range_}", remedy=remedy)
        self._freeze_bias()

    def _freeze_bias(self) -> None:
        if not isinstance(self.logit_bias, Mapping):
            raise InputError("logit_bias", self.logit_bias, "must map token ids to numbers")
        for token, bias in self.logit_bias.items():
            if not _is_int(token) or token < 0:
                raise InputError("logit_bias", token, "is no token id", remedy="ids are 0 or more")
            if not _is_number(bias):
                raise InputError(f"logit_bias[{token}]", bias, "must be a finite number", remedy="leave it out")
        object.__setattr__(self, "logit_bias", FrozenMap(self.logit_bias))

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0
