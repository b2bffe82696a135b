"""What the ranks that hold a model together are told: the first one leads, the others do the same to their part.

Sessions, pages and schedules are the leader's. Of a pass the others need no more than which rows it has, and what moved
in KV memory before it: the rest follows, as all are made alike.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from engine.step_tables import SequenceRows


@dataclass(slots=True)
class Changes:
    """Of KV memory before a pass. ``lines``: the pages of slots; ``sources``, ``targets``: what is copied from where
    to where."""

    lines: dict[int, tuple[int, ...]] = field(default_factory=dict)
    sources: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lines or self.targets)


@dataclass(frozen=True, slots=True)
class Pass:
    """Of the engine's shapes the one with that number, over these rows."""

    shape: int
    sequences: tuple[SequenceRows, ...]


Instruction = Changes | Pass


#: A context in which the others do the same.
Leading = Callable[[Instruction], AbstractContextManager[None]]


class OtherRanks(Protocol):
    """Those that are told; see ``followers.py``."""

    def leading(self, instruction: Instruction) -> AbstractContextManager[None]:
        """They do the same as the block."""
        ...
