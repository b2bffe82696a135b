"""The pool of spans after the committed text: a trie of bytes rooted at the committed end, a node for each run of them.

Spans of one drafter, of several, alternatives, and what the target looks up all land in the one trie; shared
beginnings are stored once, with the word of each source that guesses them. The branches have an order: drafters before
other sources, a drafter's first choice before its alternatives, earlier spans before later ones.

Under a rejection rule a node also holds the draft token that was drawn there, with its distribution: the first that
came, and only until the place is decided (see ``verification/rejection.py``). Its bytes are in the trie like any text.

Invariants: a node's digest, if it has one, is that of committed text + its path; ``size`` counts the bytes below the
root, of which no source brought more than ``capacity``; after ``advance`` only text that follows the new committed end
is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from speculation.drafts.draft_branches import branches, guesses
from speculation.drafts.draft_node import NO_TRUST, DraftNode, agreement
from speculation.drafts.draft_path import DraftPath
from speculation.drafts.draft_places import DraftPlaces
from speculation.drafts.span_fate import SpanFate
from speculation.protocol.messages import Span, SpeculationPlan
from speculation.source import Source, SourceKind
from speculation.text.digest import DigestedText, extend_digest

#: Of the target itself: nobody sent what they guess.
_OWN = (SourceKind.LOOKUP, SourceKind.GRAMMAR)
#: A place in the trie, good until its next change.
Place = DraftNode


class DraftPool:
    """All draft text after the committed text, as a trie of bytes.

    ``capacity`` bounds the bytes that each source may bring, so that none leaves the others without room, and
    ``SHARES`` times as many those of all.
    """

    #: Capacities that the pool holds, of however many sources.
    SHARES = 8

    #: Tokens in all distributions that the pool holds.
    MAX_PAIRS = 1 << 16
    #: Continuations of one place by one source: twice as many as a plan may ask for. Each is looked at in each step.
    MAX_CHOICES = 2 * (1 + SpeculationPlan.MAX_ALTERNATIVES)

    def __init__(self, *, capacity: int = 4096) -> None:
        self.capacity = capacity
        self.size = 0
        self._brought: dict[Source, int] = {}
        self._pairs = 0
        self._zero_width = 0
        self._arrivals = 0
        self._committed = DigestedText()
        self._root = DraftNode(digest=self._committed.digest)
        self._places = DraftPlaces()

    @property
    def committed(self) -> DigestedText:
        """The committed text that the trie hangs on. Grow it through ``advance`` only."""
        return self._committed

    def add_span(self, span: Span, pieces: Sequence[bytes] = ()) -> SpanFate:
        """Merge a span into the pool. ``pieces``: the bytes of its proposals' tokens, which its text begins with.

        A late span (its base lies before the committed end) is used from the middle, if the text committed since
        agrees with it. One that starts ahead must continue a branch that the pool holds.
        """
        committed_end, digest = len(self._committed), span.base_digest
        text = span.text
        if span.base_offset <= committed_end:
            if self._committed.digest_at(span.base_offset) != digest:
                return SpanFate.STALE
            since = self._committed.since(span.base_offset)
            if not text.startswith(since):
                return SpanFate.STALE
            text = text[len(since) :]
            node, digest = self._root, self._committed.digest
            offset = committed_end
        else:
            found = self._places.find(self._root, self._committed, span.base_offset, digest, span.source)
            if found is None:
                return SpanFate.STALE
            node, offset = found, span.base_offset
        self._arrivals += 1
        rank = (span.alternative, self._arrivals)
        if span.proposals:
            return self._insert_drawn(node, offset, text, span, pieces, rank)
        fates = [SpanFate.KNOWN]
        end = self._insert(node, text, span.confidence, span.source, rank, fates, ends=span.ends)
        if end is not None and span.source.kind is SourceKind.DRAFTER:  # the next of this branch begins there
            self._places.remember(end, offset + len(text), extend_digest(digest, text))
        return _fate(fates)

    def add_words(self, words: Iterable[tuple[bytes, float]], source: Source) -> None:
        """Words that follow the committed end one after the other, each with its confidence, as so many spans."""
        place: DraftNode | None = self._root
        for word, confidence in words:
            if place is None:  # the pool is full
                break
            self._arrivals += 1
            place = self._insert(place, word, confidence, source, (0, self._arrivals), [])

    def _insert_drawn(
        self, node: DraftNode, offset: int, text: bytes, span: Span, pieces: Sequence[bytes], rank: tuple[int, int]
    ) -> SpanFate:
        """Drawn tokens to the nodes where they begin, and all the text below ``node``."""
        fates = [SpanFate.KNOWN]
        start = span.base_offset
        for proposal, piece in zip(span.proposals, pieces, strict=True):
            lead, text = text[: max(0, start - offset)], text[max(0, start - offset) :]
            if start >= offset:
                found = self._insert(node, lead, 1.0, span.source, rank, fates)
                if found is None:
                    break
                node, offset = found, start
                if self._place_is_open(node, span, start) and self._pairs < self.MAX_PAIRS:
                    node.proposal = (proposal, piece, span.source)
                    self._pairs += len(proposal.ids)
                    fates.append(SpanFate.USED)
            start += len(piece)
        else:
            self._insert(node, text, 1.0, span.source, rank, fates, ends=span.ends)
        return _fate(fates)

    def _place_is_open(self, node: DraftNode, span: Span, start: int) -> bool:
        """Whether a token drawn at the node may be used: the first there, and nothing was decided there yet."""
        if node.proposal is not None:
            return False
        if node is not self._root:
            return True
        return (span.zero_width if start == span.base_offset else 0) == self._zero_width

    def _insert(
        self,
        node: DraftNode,
        text: bytes,
        share: float,
        source: Source,
        rank: tuple[int, int],
        fates: list[SpanFate],
        *,
        ends: bool = False,
    ) -> DraftNode | None:
        """All of ``text`` below ``node``; returns the last node, None if there was no room for it.

        ``share``: the chance of all its bytes; what those that the source sent before have of it is not the new ones'.
        """
        at = 0
        while at < len(text):
            child = node.children.get(text[at])
            if child is None:
                if len(node.children) >= self.MAX_CHOICES and node.choices_of(source) >= self.MAX_CHOICES:
                    fates.append(SpanFate.FULL)
                    return None
                new = text[at : at + self._room_of(source)]
                if new:
                    node = node.grow(new, source, rank, min(share, 1.0))
                    self.size += len(new)
                    self._brought[source] = self._brought.get(source, 0) + len(new)
                    fates.append(SpanFate.USED)
                at += len(new)
                if at < len(text):
                    fates.append(SpanFate.FULL)
                    return None
            else:
                agreed = agreement(child.text, text, at)
                if agreed < len(child.text):
                    child = node.split(text[at], agreed)
                share = child.hear(source, rank, min(share, 1.0))
                node, at = child, at + agreed
        if ends:
            if not node.ends:
                fates.append(SpanFate.USED)
            node.hear_end(source, rank)
        return node

    def _room_of(self, source: Source) -> int:
        """Bytes that it may bring yet."""
        return min(self.capacity - self._brought.get(source, 0), self.SHARES * self.capacity - self.size)

    @property
    def root(self) -> Place:
        """The committed end."""
        return self._root

    def after_drawn(self, place: Place) -> Place | None:
        """Where the text goes on after the token drawn at a place; None if none was, or one without text."""
        if place.proposal is None or not place.proposal[1]:
            return None
        return place.follow(place.proposal[1])

    def has_drawn(self, count: int) -> bool:
        """Whether so many tokens were drawn; fewer will do if what follows them was sent as text, or is the end."""
        place: DraftNode | None = self._root
        for _ in range(count):
            if place is None or place.proposal is None:
                break
            place = self.after_drawn(place)
        else:
            return True
        return place is None or bool(place.ends) or _was_sent(place)

    @property
    def has_draft(self) -> bool:
        """Whether there is any text, or the guess that it ends here."""
        return self.size > 0 or self.has_sent

    @property
    def has_sent(self) -> bool:
        """The same, of what was sent here only: by drafters, or by the client as its prediction."""
        root = self._root
        return bool(root.ends) or root.proposal is not None or _was_sent(root)

    def guesses(self, source: Source) -> dict[bytes, float]:
        """How the text goes on by the word of one source: see ``draft_branches``."""
        return guesses(self._root, source)

    def branches(
        self, *, limit: int, trust: Mapping[Source, float] = NO_TRUST, after: Place | None = None
    ) -> Iterator[DraftPath]:
        """After a place (None: the committed end), at most ``limit`` bytes of each: see ``draft_branches``."""
        return branches(after or self._root, limit=limit, trust=trust)

    def advance(self, text: bytes, *, zero_width: int = 0) -> None:
        """Commit ``text``: what agrees with it stays as draft, all else goes.

        ``zero_width``: tokens committed at its end that added no bytes.
        """
        node = self._root.follow(text)
        self._committed.append(text)
        self._root = node if node is not None else DraftNode(digest=self._committed.digest)
        if not text:  # a token without bytes: the target went on, so the guess that the text ends here was wrong
            self._root.ends = {}
        if zero_width:  # the place of what was drawn here is decided
            self._root.proposal = None
        self._zero_width = zero_width
        self._count()

    def clear(self) -> None:
        """Drop every draft."""
        self._root = DraftNode(digest=self._committed.digest)
        self._count()

    def _count(self) -> None:
        """What is held below the root, and who brought it."""
        self._root.text, self.size, self._pairs = b"", 0, 0
        self._brought = {}
        left, held = [self._root], set[DraftNode]()
        while left:
            node = left.pop()
            held.add(node)
            if node.text:
                self.size += len(node.text)
                self._brought[node.brought_by] = self._brought.get(node.brought_by, 0) + len(node.text)
            if node.proposal is not None:
                self._pairs += len(node.proposal[0].ids)
            left += node.children.values()
        self._places.keep(held)


def _fate(fates: Sequence[SpanFate]) -> SpanFate:
    """Of a span whose parts had these."""
    return next(fate for fate in (SpanFate.FULL, SpanFate.USED, SpanFate.KNOWN) if fate in fates)


def _was_sent(node: DraftNode) -> bool:
    """Whether any text after the node was sent here: not looked up, nor forced by a guide."""
    return any(source.kind not in _OWN for child in node.children.values() for source in child.voices)
