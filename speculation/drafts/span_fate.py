"""What the pool of drafts makes of a span."""

from __future__ import annotations

import enum


class SpanFate(enum.Enum):
    """What became of a span."""

    USED = "used"  # it holds text that the pool did not have
    KNOWN = "known"  # all of it is committed or in the pool already (a resend, or two drafters that agree)
    STALE = "stale"  # it follows a text that is not, or no longer, possible
    FULL = "full"  # its source has filled its share of the pool, or said enough about that place
