"""The branches of the pool, as one after the other they are worth looking at."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Mapping

from speculation.drafts.draft_node import DraftNode, first_of
from speculation.drafts.draft_path import DraftPath
from speculation.source import Source

#: So much of a draft tells whether it agrees: about one token. And branches that are looked at for it.
GUESS_BYTES, GUESSES = 4, 8

#: A branch to be followed: its chance, negative; its number; its last node; its bytes, with their chances and sources;
#: and the chance of all of them by each source.
_Turn = tuple[float, int, DraftNode, bytes, tuple[float, ...], tuple[Source, ...], Mapping[Source, float]]


def branches(root: DraftNode, *, limit: int, trust: Mapping[Source, float]) -> Iterator[DraftPath]:
    """The first branch in order, then those that turn off from the ones before, the likeliest turn first.

    At most ``limit`` bytes of each, and none across a place beyond ``root`` where a token was drawn. ``trust``: what
    the chances that a source gives are multiplied with.
    """
    order = itertools.count()
    turns: list[_Turn] = [(-1.0, next(order), root, b"", (), (), trust)]
    while turns:
        turn, _, node, text, chances, sources, weights = heapq.heappop(turns)
        path, so_far, authors, chance = bytearray(text), list(chances), list(sources), -turn
        while len(path) < limit and not _is_drawn(node, root):
            best, child = node.best_child(trust)
            for byte, other in ((byte, other) for byte, other in node.children.items() if other is not child):
                turned, likely, author = other.weigh(weights, chance, trust)
                if likely > 0:
                    steps = (bytes((*path, byte)), (*so_far, likely), (*authors, author), turned)
                    heapq.heappush(turns, (-likely, next(order), other, *steps))
            if child is None:
                break
            weights, chance, author = child.weigh(weights, chance, trust)
            path.append(best)
            so_far.append(chance)
            authors.append(author)
            node = child
        drawn = _is_drawn(node, root)
        ends = node.ends if node.ends and not drawn and node.best_child(trust)[1] is None else {}
        ends_by = first_of(ends, trust)[1] if ends else None
        found = bytes(path), bool(ends), tuple(so_far), -turn, tuple(authors), ends_by
        yield DraftPath(*found, drawn_at=node if drawn else None)


def _is_drawn(node: DraftNode, root: DraftNode) -> bool:
    return node is not root and node.proposal is not None


def guesses(root: DraftNode, source: Source) -> dict[bytes, float]:
    """How the text goes on by the word of one source: the first bytes of its likeliest branches, with their chances.

    What it sent to continue the guesses of others is not its own word for what comes next.
    """
    found: dict[bytes, float] = {}
    level = [(root, b"", 1.0)]
    while level:
        node, text, chance = level.pop()
        told = [(byte, child) for byte, child in node.children.items() if source in child.voices]
        if text and (not told or len(text) == GUESS_BYTES):
            found[text] = chance
        else:
            level += [(child, bytes((*text, byte)), chance * child.voices[source].share) for byte, child in told]
    likeliest = heapq.nlargest(GUESSES, found.items(), key=lambda guess: guess[1])
    return {text: chance for text, chance in likeliest if chance > 0}
