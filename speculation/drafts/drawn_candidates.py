"""The candidates of a step under the rejection rules: drawn tokens, and text beside and behind them.

At a place of the pool where a token was drawn, that token is a candidate with its distribution. All other text there,
alternatives of the drafter and what was looked up or predicted, is verified by agreement: where it equals the token
that the target drew instead, the step goes on behind it, perhaps with a token that was drawn there.

Whether a drawn token becomes a candidate must not depend on it (``verification/rejection.py``). So at its place it
comes first, before any text whose spelling or chance its bytes may have changed; its own chance is that of the place
times the largest of its distribution, whatever was drawn; and text is spelled to the next place where a token was
drawn, and no further.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from speculation.drafts.candidates import MAX_BRANCHES, ROOT, CandidateBuilder, CandidateTree, draft_bytes
from speculation.drafts.draft_path import DraftPath
from speculation.drafts.draft_pool import DraftPool, Place
from speculation.protocol.proposal import Proposal
from speculation.source import Source
from speculation.text.retokenize import open_tail


@dataclass(slots=True)
class _Tree:
    """What was taken so far. ``first``: candidates on the path that drafters rank first."""

    width: int
    free: int
    threshold: float
    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    proposals: list[Proposal | None] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    _numbers: dict[tuple[int, int], int] = field(default_factory=dict)

    def takes(self, chance: float) -> bool:
        """Whether there is room for one more candidate that is so likely."""
        count = len(self.tokens)
        return count < self.width and (count < self.free or chance >= self.threshold)

    def add(
        self, parent: int, token: int, source: Source, chance: float, proposal: Proposal | None = None
    ) -> int | None:
        """The candidate's number; None if it is not taken."""
        known = self._numbers.get((parent, token))
        if known is not None or not self.takes(chance):
            return known
        number = self._numbers[parent, token] = len(self.tokens)
        self.tokens.append(token)
        self.parents.append(parent)
        self.proposals.append(proposal)
        self.sources.append(source)
        return number

    def path(self, node: int) -> list[int]:
        """Tokens from the first candidate down to ``node``."""
        found: list[int] = []
        while node != ROOT:
            found.append(self.tokens[node])
            node = self.parents[node]
        return found[::-1]


class DrawnCandidates:
    """Cuts the candidates of one step out of a pool that holds drawn tokens. ``tail``: the last committed ids."""

    def __init__(
        self,
        builder: CandidateBuilder,
        pool: DraftPool,
        tail: Sequence[int],
        *,
        width: int,
        threshold: float,
        trust: Mapping[Source, float],
    ) -> None:
        self._builder, self._pool, self._tail, self._trust = builder, pool, tail, trust
        self._tree = _Tree(width, builder.free, threshold)
        self._order = itertools.count()
        #: Places to look at, the likeliest first: chance, order, place, the candidate before it, whether drafters rank
        #: the way there first.
        self._places: list[tuple[float, int, Place, int, bool]] = []

    def build(self) -> tuple[CandidateTree, tuple[Proposal | None, ...]]:
        """The candidates, and for each what it was drawn from, None where it was not."""
        tree = self._tree
        self._push(self._pool.root, ROOT, 1.0, first=True)
        while self._places and tree.takes(1.0):
            chance, _, place, node, first = heapq.heappop(self._places)
            self._look(place, node, -chance, first)
        parents, sources = tuple(tree.parents), tuple(tree.sources)
        return CandidateTree(
            tokens=tuple(tree.tokens), parents=parents, first_choices=tuple(tree.first), sources=sources
        ), tuple(tree.proposals)

    def _push(self, place: Place | None, node: int, chance: float, *, first: bool) -> None:
        if place is not None:
            heapq.heappush(self._places, (-chance, next(self._order), place, node, first))

    def _look(self, place: Place, node: int, chance: float, first: bool) -> None:
        """The token drawn at a place, then the text there."""
        drawn = b""
        if place.proposal is not None:
            proposal, drawn, source = place.proposal
            likely = chance * max(proposal.weights) / proposal.total
            number = self._tree.add(node, proposal.token, source, likely, proposal)
            if number is None:
                return  # an undrawn token here would be decided without the drawn one all the same
            if first:
                self._tree.first.append(number)
            self._push(self._pool.after_drawn(place), number, likely, first=first)
            first = False
        limit = draft_bytes(self._tree.width)
        paths = self._pool.branches(limit=limit, trust=self._trust, after=place)
        for path in itertools.islice(paths, MAX_BRANCHES):
            if not self._tree.takes(chance * path.turning_chance):
                break
            if not (drawn and path.text.startswith(drawn)):
                self._add_text(path, node, chance, first)
            first = False

    def _add_text(self, path: DraftPath, node: int, chance: float, first: bool) -> None:
        tree, builder, end = self._tree, self._builder, 0
        tail = open_tail([*self._tail, *tree.path(node)], builder.vocab)
        tokens = builder.spell(path, tail, tree.width)
        for token, author in zip(tokens, builder.authors(path, tokens), strict=True):
            end += len(builder.vocab.bytes_of(token))
            likely = chance * (path.chances[end - 1] if end else 1.0)
            number = tree.add(node, token, author, likely)
            if number is None:
                return
            if first and end <= path.sent and number not in tree.first:
                tree.first.append(number)
            node = number
        if path.drawn_at is not None and end == len(path.text) and tokens:
            self._push(path.drawn_at, node, chance * path.chances[-1], first=first)
