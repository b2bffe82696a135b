"""The pool of spans after the committed text: a trie of bytes rooted at the committed end.

Spans of one drafter, of several, and alternatives all land in the one trie; shared beginnings are stored once.
Ranks order the branches: a drafter's first choice before its alternatives, earlier spans before later ones.

Under a rejection rule a node also holds the draft token that was drawn there, with its distribution: the first that
came, and only until the place is decided (see ``speculation/rejection.py``). Its bytes are in the trie like any text.

Invariants: every node's digest is that of committed text + its path; ``size`` counts the nodes below the root
and never exceeds ``capacity``; after ``advance`` only text that follows the new committed end is left.
"""

from __future__ import annotations

import enum
import heapq
import itertools
from collections.abc import Iterator, Sequence

from speculation.draft_path import DraftPath
from speculation.lookup import OWN_RANK
from speculation.messages import Span
from speculation.proposal import Proposal
from speculation.text_digest import DigestedText, extend_digest

_NEVER = (1 << 30, 1 << 62)
#: So much of a draft tells whether it agrees: about one token. And branches that are looked at for it.
GUESS_BYTES, GUESSES = 4, 8


class SpanFate(enum.Enum):
    """What became of a span."""

    USED = "used"  # it holds text that the pool did not have
    KNOWN = "known"  # all of it is committed or in the pool already (a resend, or two drafters that agree)
    STALE = "stale"  # it follows a text that is not, or no longer, possible
    FULL = "full"  # the pool is at its capacity


class _Node:
    """``share``: the chance of this byte, given those before it. ``proposal``: what was drawn to follow it."""

    __slots__ = ("children", "digest", "ends_rank", "proposal", "rank", "share")

    def __init__(self, digest: int, rank: tuple[int, int], share: float = 1.0) -> None:
        self.children: dict[int, _Node] = {}
        self.digest = digest
        self.rank = rank
        self.share = share
        self.ends_rank = _NEVER
        self.proposal: tuple[Proposal, bytes] | None = None  # and its token's bytes

    def best_child(self) -> tuple[int, _Node | None]:
        """The best-ranked, with its byte; None if there is none, or if the guess that the text ends is better."""
        byte, child = min(self.children.items(), key=lambda item: item[1].rank, default=(0, None))
        return (0, None) if child is None or self.ends_rank < child.rank else (byte, child)


#: A place in the trie, good until its next change.
Place = _Node


class DraftTrie:
    """See the module. ``capacity`` bounds the bytes held, whatever drafters send."""

    #: Tokens in all distributions that the pool holds.
    MAX_PAIRS = 1 << 16

    def __init__(self, *, capacity: int = 4096) -> None:
        self.capacity = capacity
        self._pairs = 0
        self.size = 0
        self._zero_width = 0
        self._arrivals = 0
        self._committed = DigestedText()
        self._root = _Node(self._committed.digest, (0, 0))
        self._index: dict[tuple[int, int], _Node] = {}
        self._reindex()

    @property
    def committed(self) -> DigestedText:
        """The committed text that the trie hangs on. Grow it through ``advance`` only."""
        return self._committed

    def add(self, span: Span, pieces: Sequence[bytes] = ()) -> SpanFate:
        """Merge a span into the pool. ``pieces``: the bytes of its proposals' tokens, which its text begins with.

        A late span (its base lies before the committed end) is used from the middle, if the text committed since
        agrees with it. One that starts ahead must continue a branch that the pool holds.
        """
        committed_end = len(self._committed)
        text = span.text
        if span.base_offset <= committed_end:
            if self._committed.digest_at(span.base_offset) != span.base_digest:
                return SpanFate.STALE
            since = self._committed.since(span.base_offset)
            if not text.startswith(since):
                return SpanFate.STALE
            text = text[len(since) :]
            node = self._root
            offset = committed_end
        else:
            found = self._index.get((span.base_offset, span.base_digest))
            if found is None:
                return SpanFate.STALE
            node, offset = found, span.base_offset
        self._arrivals += 1
        rank = (span.alternative, self._arrivals)
        return self._insert_drawn(node, offset, text, span, pieces, rank)

    def _insert_drawn(
        self, node: _Node, offset: int, text: bytes, span: Span, pieces: Sequence[bytes], rank: tuple[int, int]
    ) -> SpanFate:
        """Drawn tokens to the nodes where they begin, and all the text below ``node``."""
        fates = [SpanFate.KNOWN]
        start = span.base_offset
        for proposal, piece in zip(span.proposals, pieces, strict=True):
            lead, text = text[: max(0, start - offset)], text[max(0, start - offset) :]
            if start >= offset:
                found = self._insert(node, offset, lead, 1.0, False, rank, fates)
                if found is None:
                    break
                node, offset = found, start
                if self._place_is_open(node, span, start) and self._pairs < self.MAX_PAIRS:
                    node.proposal = (proposal, piece)
                    self._pairs += len(proposal.ids)
                    fates.append(SpanFate.USED)
            start += len(piece)
        else:
            share = 1.0 if span.proposals else span.confidence
            self._insert(node, offset, text, share, span.ends, rank, fates)
        return next(fate for fate in (SpanFate.FULL, SpanFate.USED, SpanFate.KNOWN) if fate in fates)

    def _place_is_open(self, node: _Node, span: Span, start: int) -> bool:
        """Whether a token drawn at the node may be used: the first there, and nothing was decided there yet."""
        if node.proposal is not None:
            return False
        if node is not self._root:
            return True
        return (span.zero_width if start == span.base_offset else 0) == self._zero_width

    def _insert(
        self,
        node: _Node,
        offset: int,
        text: bytes,
        share: float,
        ends: bool,
        rank: tuple[int, int],
        fates: list[SpanFate],
    ) -> _Node | None:
        """All of ``text`` below ``node``; returns the last node, None if there was no room for it.

        ``share``: the chance of all its bytes; what the known ones have of it is not the new ones'.
        """
        for byte in text:
            child = node.children.get(byte)
            offset += 1
            if child is None:
                if self.size >= self.capacity:
                    fates.append(SpanFate.FULL)
                    return None
                child = _Node(extend_digest(node.digest, bytes((byte,))), rank, min(share, 1.0))
                share = 1.0
                node.children[byte] = child
                self._index[offset, child.digest] = child
                self.size += 1
                fates.append(SpanFate.USED)
            else:
                child.share = max(child.share, min(share, 1.0))
                share = share / child.share if child.share else 1.0
            child.rank = min(child.rank, rank)
            node = child
        if ends and rank < node.ends_rank:
            if node.ends_rank == _NEVER:
                fates.append(SpanFate.USED)
            node.ends_rank = rank
        return node

    def drawn(self, *, limit: int, after: Place | None = None) -> tuple[list[Proposal], Place | None]:
        """The tokens drawn from a place on (None: the committed end), one after another; and the place after them."""
        node: _Node | None = after or self._root
        found: list[Proposal] = []
        while node is not None and node.proposal is not None and len(found) < limit:
            proposal, piece = node.proposal
            found.append(proposal)
            if not piece:
                node = None
            for byte in piece:
                node = node.children.get(byte) if node is not None else None
        return found, node

    def has_drawn(self, count: int) -> bool:
        """Whether so many tokens were drawn; fewer will do if what follows them came in another way, or is the end."""
        drawn, place = self.drawn(limit=count)
        return len(drawn) >= count or place is None or bool(place.children) or place.ends_rank != _NEVER

    @property
    def has_draft(self) -> bool:
        """Whether there is any text, or the guess that it ends here."""
        return self.size > 0 or self.has_sent

    @property
    def has_sent(self) -> bool:
        """The same, of what drafters sent only."""
        root = self._root
        ends = root.ends_rank != _NEVER or root.proposal is not None
        return ends or any(child.rank[0] < OWN_RANK for child in root.children.values())

    def text_to_drawn(self, *, limit: int, after: Place) -> tuple[DraftPath, Place | None]:
        """The best-ranked text after a place, at most ``limit`` bytes, to where a token was drawn; that place."""
        text, node = bytearray(), after
        while len(text) < limit:
            byte, child = node.best_child()
            if child is None:
                return DraftPath(bytes(text), node.ends_rank != _NEVER), None
            text.append(byte)
            node = child
            if node.proposal is not None:
                return DraftPath(bytes(text), False), node
        return DraftPath(bytes(text), False), None

    def guesses(self) -> dict[bytes, float]:
        """How the text goes on by drafters' word: the first bytes of some branches, with their chances."""
        paths = itertools.islice(self.branches(limit=GUESS_BYTES), GUESSES)
        return {path.text[: path.sent]: path.chances[path.sent - 1] for path in paths if path.sent}

    def branches(self, *, limit: int) -> Iterator[DraftPath]:
        """The best-ranked branch, then those that turn off from the ones before, the likeliest turn first.

        At most ``limit`` bytes of each.
        """
        order = itertools.count()
        turns: list[tuple[float, int, bytes, tuple[float, ...], _Node]] = [(-1.0, next(order), b"", (), self._root)]
        while turns:
            turn, _, text, chances, node = heapq.heappop(turns)
            path, so_far, chance = bytearray(text), list(chances), -turn
            sent = len(text) if node.rank[0] < OWN_RANK else 0
            while len(path) < limit:
                best, child = node.best_child()
                for byte, other in node.children.items():
                    if other is not child and chance * other.share > 0:
                        turned = (bytes((*path, byte)), (*so_far, chance * other.share))
                        heapq.heappush(turns, (-chance * other.share, next(order), *turned, other))
                if child is None:
                    break
                chance *= child.share
                path.append(best)
                so_far.append(chance)
                node = child
                if node.rank[0] < OWN_RANK:
                    sent = len(path)
            ends = node.ends_rank != _NEVER and node.best_child()[1] is None
            yield DraftPath(bytes(path), ends, tuple(so_far), -turn, sent)

    def advance(self, text: bytes, *, zero_width: int = 0) -> None:
        """Commit ``text``: what agrees with it stays as draft, all else goes.

        ``zero_width``: tokens committed at its end that added no bytes.
        """
        node: _Node | None = self._root
        for byte in text:
            node = node.children.get(byte) if node is not None else None
        self._committed.append(text)
        self._root = node if node is not None else _Node(self._committed.digest, (0, 0))
        if not text:  # a token without bytes: the target went on, so the guess that the text ends here was wrong
            self._root.ends_rank = _NEVER
        if zero_width:  # the place of what was drawn here is decided
            self._root.proposal = None
        self._zero_width = zero_width
        self._reindex()

    def clear(self) -> None:
        """Drop every draft."""
        self._root = _Node(self._committed.digest, (0, 0))
        self._reindex()

    def _reindex(self) -> None:
        self._index = {}
        level, offset = [self._root], len(self._committed)
        while level:
            for node in level:
                self._index[offset, node.digest] = node
            level = [child for node in level for child in node.children.values()]
            offset += 1
        self.size = len(self._index) - 1
        drawn = (node.proposal for node in self._index.values())
        self._pairs = sum(len(proposal[0].ids) for proposal in drawn if proposal is not None)
