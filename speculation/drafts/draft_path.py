"""One branch of the pool of drafts, as a step sees it."""

from __future__ import annotations

from dataclasses import dataclass

from speculation.drafts.draft_node import DraftNode
from speculation.source import DRAFTER, Source, SourceKind


@dataclass(frozen=True, slots=True)
class DraftPath:
    """One branch from the committed end, or another place: its bytes, and whether its source thinks that the text ends.

    ``chances``: that the target writes the text up to and with each byte, by the word of the sources and the trust in
    them. ``turning_chance``: that it turns off here from the branches before this one. ``sources``: who guessed each
    byte. ``ends_by``: who guessed the end. ``drawn_at``: the place where it ends, if a token was drawn there.
    """

    text: bytes
    ends: bool
    chances: tuple[float, ...] = ()
    turning_chance: float = 1.0
    sources: tuple[Source, ...] = ()
    ends_by: Source | None = None
    drawn_at: DraftNode | None = None

    @property
    def sent(self) -> int:
        """How many bytes of it drafters sent; the rest is of other sources."""
        kinds = [source.kind for source in self.sources]
        return len(kinds) - kinds[::-1].index(SourceKind.DRAFTER) if SourceKind.DRAFTER in kinds else 0

    def author(self, end: int) -> Source:
        """Who guessed the byte before ``end``."""
        return self.sources[end - 1] if self.sources else DRAFTER

    @property
    def end_author(self) -> Source:
        """Who guessed that the text ends there."""
        return self.ends_by or DRAFTER
