"""What a good request keeps: --goodput."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from speculation.errors import InputError


@dataclass(frozen=True, slots=True)
class Goal:
    """Milliseconds at most; None: any number."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2el_ms: float | None = None

    @classmethod
    def parse(cls, pairs: Sequence[str]) -> Self:
        """Of texts such as "ttft:200" or "ttft:200 tpot:20". Raises InputError."""
        limits: dict[str, float] = {}
        for pair in (pair for text in pairs for pair in text.split()):
            metric, colon, written = pair.partition(":")
            remedy = "write ttft:MS, tpot:MS or e2el:MS, several in quotes: 'ttft:200 tpot:20'"
            if not colon or metric not in ("ttft", "tpot", "e2el"):
                raise InputError("goodput", pair, "is no goal", remedy=remedy)
            try:
                limit = float(written)
            except ValueError:
                raise InputError("goodput", pair, "has no number", remedy=remedy) from None
            if not limit >= 0:
                raise InputError("goodput", pair, "has a limit below 0", remedy=remedy)
            limits[f"{metric}_ms"] = limit
        return cls(**limits)

    @property
    def given(self) -> bool:
        """Whether there is any."""
        return self != type(self)()

    def kept(self, row: Mapping[str, Any]) -> bool:
        """Whether a request with these figures is a good one. A text of one token has no TPOT to break a goal with."""
        limits = dataclasses.asdict(self).items()
        return all(limit is None or (row[name] or 0.0) <= limit for name, limit in limits)
