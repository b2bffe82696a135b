"""What a loader has to know of tensor parallelism: that this process keeps a part of the weights only.

``engine/rank_group.py`` and ``engine/sharding.py`` do it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from transformers import PreTrainedModel


class Shards(Protocol):
    """The processes that hold one model together; all of them load it, with the same options."""

    @property
    def size(self) -> int:
        """How many."""
        ...

    def turn(self) -> AbstractContextManager[None]:
        """One process after the other: each has the whole weights in the host's memory for a while."""
        ...

    def keep_part(self, model: PreTrainedModel, name: str) -> None:
        """In place; its passes are computed together with the others from then on. Raises UnsupportedModelError for a
        model that cannot be divided so, InputError for one that cannot be among so many."""
        ...

    def code(self) -> bytes:
        """A digest of the code that divides and computes it."""
        ...

    def least(self, number: int) -> int:
        """The smallest of what they have; each has to ask."""
        ...

    def all_agree(self, flag: bool) -> bool:
        """Whether it is true in every one of them; each has to ask."""
        ...
