"""The pool of spans after the committed text: a trie of bytes rooted at the committed end.

Spans of one drafter, of several, and alternatives all land in the one trie; shared beginnings are stored once.
Ranks order the branches: a drafter's first choice before its alternatives, earlier spans before later ones.

Invariants: every node's digest is that of committed text + its path; ``size`` counts the nodes below the root
and never exceeds ``capacity``; after ``advance`` only text that follows the new committed end is left.
"""

from __future__ import annotations

import enum
import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from speculation.lookup import OWN_RANK
from speculation.messages import Span
from speculation.text_digest import DigestedText, extend_digest

_NEVER = (1 << 30, 1 << 62)
#: So much of a draft tells whether it agrees: about one token.
GUESS_BYTES = 4


class SpanFate(enum.Enum):
    """What became of a span."""

    USED = "used"  # it holds text that the pool did not have
    KNOWN = "known"  # all of it is committed or in the pool already (a resend, or two drafters that agree)
    STALE = "stale"  # it follows a text that is not, or no longer, possible
    FULL = "full"  # the pool is at its capacity


@dataclass(frozen=True, slots=True)
class DraftPath:
    """One branch from the committed end: its bytes, and whether the drafter thinks the text ends there.

    ``chances``: by the drafter's word, that the target writes the text up to and with each byte. ``turning_chance``:
    that it turns off here from the branches before this one. ``sent``: how many bytes of it drafters sent; the rest the
    target looked up.
    """

    text: bytes
    ends: bool
    chances: tuple[float, ...] = ()
    turning_chance: float = 1.0
    sent: int = 0


class _Node:
    """``share``: the chance of this byte, given those before it."""

    __slots__ = ("children", "digest", "ends_rank", "rank", "share")

    def __init__(self, digest: int, rank: tuple[int, int], share: float = 1.0) -> None:
        self.children: dict[int, _Node] = {}
        self.digest = digest
        self.rank = rank
        self.share = share
        self.ends_rank = _NEVER

    def best_child(self) -> tuple[int, _Node | None]:
        """The best-ranked, with its byte; None if there is none, or if the guess that the text ends is better."""
        byte, child = min(self.children.items(), key=lambda item: item[1].rank, default=(0, None))
        return (0, None) if child is None or self.ends_rank < child.rank else (byte, child)


class DraftTrie:
    """See the module. ``capacity`` bounds the bytes held, whatever drafters send."""

    def __init__(self, *, capacity: int = 4096) -> None:
        self.capacity = capacity
        self.size = 0
        self._arrivals = 0
        self._committed = DigestedText()
        self._root = _Node(self._committed.digest, (0, 0))
        self._index: dict[tuple[int, int], _Node] = {}
        self._reindex()

    @property
    def committed(self) -> DigestedText:
        """The committed text that the trie hangs on. Grow it through ``advance`` only."""
        return self._committed

    def add(self, span: Span) -> SpanFate:
        """Merge a span into the pool.

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
        return self._insert(node, offset, text, span, (span.alternative, self._arrivals))

    def fits(self, span: Span) -> bool:
        """Whether the span follows a text that is still possible."""
        if span.base_offset > len(self._committed):
            return (span.base_offset, span.base_digest) in self._index
        if self._committed.digest_at(span.base_offset) != span.base_digest:
            return False
        return span.text.startswith(self._committed.since(span.base_offset))

    def _insert(self, node: _Node, offset: int, text: bytes, span: Span, rank: tuple[int, int]) -> SpanFate:
        fate = SpanFate.KNOWN
        share = span.confidence  # of all its bytes; what the known ones have of it is not the new ones'
        for byte in text:
            child = node.children.get(byte)
            offset += 1
            if child is None:
                if self.size >= self.capacity:
                    return SpanFate.FULL
                child = _Node(extend_digest(node.digest, bytes((byte,))), rank, min(share, 1.0))
                share = 1.0
                node.children[byte] = child
                self._index[offset, child.digest] = child
                self.size += 1
                fate = SpanFate.USED
            else:
                child.share = max(child.share, min(share, 1.0))
                share = share / child.share if child.share else 1.0
            child.rank = min(child.rank, rank)
            node = child
        if span.ends and rank < node.ends_rank:
            fate = SpanFate.USED if node.ends_rank == _NEVER else fate
            node.ends_rank = rank
        return fate

    @property
    def has_draft(self) -> bool:
        """Whether there is any text, or the guess that it ends here."""
        return self.size > 0 or self._root.ends_rank != _NEVER

    def best_path(self, *, limit: int) -> DraftPath:
        """The best-ranked branch, at most ``limit`` bytes of it."""
        return next(self.branches(limit=limit))

    def first_guess(self) -> tuple[bytes, float]:
        """The first bytes of what drafters rank first, and their chance; empty without a draft of theirs."""
        node, path, chance = self._root, bytearray(), 1.0
        while len(path) < GUESS_BYTES:
            byte, child = node.best_child()
            if child is None or child.rank[0] >= OWN_RANK:
                break
            path.append(byte)
            chance *= child.share
            node = child
        return bytes(path), chance

    def branches(self, *, limit: int) -> Iterator[DraftPath]:
        """The best-ranked branch, then those that turn off from the ones before, the likeliest turn first.

        At most ``limit`` bytes of each.
        """
        order = itertools.count()
        turns = [(-1.0, next(order), b"", (), self._root)]
        while turns:
            turn, _, text, chances, node = heapq.heappop(turns)
            path, so_far, chance, sent = bytearray(text), list(chances), -turn, 0
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

    def advance(self, text: bytes) -> None:
        """Commit ``text``: what agrees with it stays as draft, all else goes."""
        node: _Node | None = self._root
        for byte in text:
            node = node.children.get(byte) if node is not None else None
        self._committed.append(text)
        self._root = node if node is not None else _Node(self._committed.digest, (0, 0))
        if not text:  # a token without bytes: the target went on, so the guess that the text ends here was wrong
            self._root.ends_rank = _NEVER
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
