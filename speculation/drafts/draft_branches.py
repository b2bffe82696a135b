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

#: A branch to be followed: its chance, negative; its number; its last node, None if only a part of that is in it; its
#: bytes, with their chances and sources; and the chance of all of them by each source.
_Turn = tuple[float, int, DraftNode | None, bytes, tuple[float, ...], tuple[Source, ...], Mapping[Source, float]]


def branches(root: DraftNode, *, limit: int, trust: Mapping[Source, float]) -> Iterator[DraftPath]:
    """The first branch in order, then those that turn off from the ones before, the likeliest turn first.

    At most ``limit`` bytes of each, and none across a place beyond ``root`` where a token was drawn. ``trust``: what
    the chances that a source gives are multiplied with.
    """
    order = itertools.count()
    turns: list[_Turn] = [(-1.0, next(order), root, b"", (), (), trust)]
    while turns:
        turn, _, node, text, chances, sources, weights = heapq.heappop(turns)
        path, so_far, authors, chance = text, list(chances), list(sources), -turn
        while node is not None and len(path) < limit and not _is_drawn(node, root):
            child = node.best_child(trust)
            for other in (other for other in node.children.values() if other is not child):
                turned, likely, author = other.weigh(weights, chance, trust)
                if likely > 0:
                    run, end = _as_far_as(limit - len(path), other)
                    steps = (path + run, (*so_far, *[likely] * len(run)), (*authors, *[author] * len(run)), turned)
                    heapq.heappush(turns, (-likely, next(order), end, *steps))
            if child is None:
                break
            weights, chance, author = child.weigh(weights, chance, trust)
            run, node = _as_far_as(limit - len(path), child)
            path += run
            so_far += [chance] * len(run)
            authors += [author] * len(run)
        drawn = node if node is not None and _is_drawn(node, root) else None
        ends = node.ends if node is not None and drawn is None and node.best_child(trust) is None else {}
        yield DraftPath(
            text=path,
            ends=bool(ends),
            chances=tuple(so_far),
            turning_chance=-turn,
            sources=tuple(authors),
            ends_by=first_of(ends, trust)[1] if ends else None,
            drawn_at=drawn,
        )


def _as_far_as(limit: int, run: DraftNode) -> tuple[bytes, DraftNode | None]:
    """The bytes of a run that there is room for, and the run if that is all of them."""
    return (run.text, run) if len(run.text) <= limit else (run.text[:limit], None)


def _is_drawn(node: DraftNode, root: DraftNode) -> bool:
    return node is not root and node.proposal is not None


def guesses(root: DraftNode, source: Source) -> dict[bytes, float]:
    """How the text goes on by the word of one source: the first bytes of its likeliest branches, with their chances.

    What it sent to continue the guesses of others is not its own word for what comes next.
    """
    found: dict[bytes, float] = {}
    order = itertools.count()
    # The likeliest first, equals in the order of their bytes: nothing that follows is likelier than what it follows, so
    # the first of them that are whole are the likeliest, however much else a source says.
    left = [(-1.0, b"", next(order), root)]
    while left and len(found) < GUESSES:
        unlikely, text, _, node = heapq.heappop(left)
        told = [child for child in node.children.values() if source in child.voices]
        if text and (not told or len(text) == GUESS_BYTES):
            found[text] = -unlikely
            continue
        for run in told:
            if chance := -unlikely * run.voices[source].share:
                longer = (text + run.text)[:GUESS_BYTES]
                heapq.heappush(left, (-chance, longer, next(order), run))
    return found
