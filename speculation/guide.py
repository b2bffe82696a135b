"""What a text may be, token by token, for a target that is held to a schema, an expression or a grammar.

A guide stands where the committed text ends. What it allows after a path of further tokens is a function of all tokens
up to there and of nothing else, as penalties are; so a mask made of it changes no proof about drafts: each row's
distribution is the model's own, restricted to what the guide allows there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

#: Tokens that may follow the committed text.
Path = tuple[int, ...]


class Forced(NamedTuple):
    """The only way in which a text can go on: ``data``, its bytes; ``ends``: after them it is over."""

    data: bytes = b""
    ends: bool = False


class Guide(Protocol):
    """Of one text. Used from one thread at a time."""

    def advance(self, token: int) -> None:
        """``token``, one that is allowed, is committed. Raises SessionError if the guide is lost."""
        ...

    def masks(self, paths: Sequence[Path]) -> list[bytes]:
        """For the row behind each path: bit i % 8 of byte i // 8 says whether token i is allowed. One is, always.

        Raises SessionError if the guide gave up. A path that is not allowed itself has any mask.
        """
        ...

    def fits(self, path: Path) -> bool:
        """Whether each of these tokens is allowed after those before it."""
        ...

    def forced(self) -> Forced:
        """What must come next, as far as that is known."""
        ...
