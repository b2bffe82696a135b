"""Where a draft comes from."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final


class SourceKind(enum.IntEnum):
    """In the order of their ranks: where several guess the same text, it counts for the first of them."""

    DRAFTER = 0
    #: Of the client.
    PREDICTION = 1
    #: Of the target, in prompt and text, and in drafts that came too late.
    LOOKUP = 2
    #: What the client has of a text that is resumed.
    REPLAY = 3
    #: What a guide leaves no choice about.
    GRAMMAR = 4
    #: Of the target: what it ranked first elsewhere after the same tokens.
    RECYCLED = 5

    @property
    def label(self) -> str:
        """As people and metrics call it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Somebody who drafts in a session. Told apart by identity: names of drafters need not be unique."""

    kind: SourceKind


#: A drafter where there is one only.
DRAFTER: Final = Source(SourceKind.DRAFTER)
PREDICTION: Final = Source(SourceKind.PREDICTION)
LOOKUP: Final = Source(SourceKind.LOOKUP)
REPLAY: Final = Source(SourceKind.REPLAY)
GRAMMAR: Final = Source(SourceKind.GRAMMAR)
RECYCLED: Final = Source(SourceKind.RECYCLED)
