"""A candidate while a step's tree is being made."""

from __future__ import annotations

from speculation.source import DRAFTER, Source


class CandidateNode:
    """``token`` after its parent; the root, which is no candidate, has none. ``chance``: that it is accepted."""

    __slots__ = ("chance", "children", "parent", "source", "token")

    def __init__(self, parent: CandidateNode | None, token: int, chance: float, source: Source = DRAFTER) -> None:
        self.parent = parent
        self.token = token
        self.chance = chance
        self.source = source
        self.children: dict[int, CandidateNode] = {}

    def add(self, token: int, chance: float, source: Source) -> CandidateNode:
        """A child, which is never likelier than its parent."""
        chance = min(chance, self.chance)
        child = self.children[token] = CandidateNode(parent=self, token=token, chance=chance, source=source)
        return child
