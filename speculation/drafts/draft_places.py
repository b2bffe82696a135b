"""Places in the trie of drafts that spans continue from, found by the offset and the digest of the text before them.

Drafters send a span for each token of a branch, so most spans begin where one before them ended: that place is known.
Any other is looked for, on its sender's time.
"""

from __future__ import annotations

from collections.abc import Set

from speculation.drafts.draft_node import DraftNode
from speculation.source import Source
from speculation.text.digest import DigestedText, extend_digest

#: Bytes of others' guesses in which a span's place is looked for; a run counts as some more.
LOOKED_AT, RUN_COST = 2048, 16


class DraftPlaces:
    """Of one trie. A place is good as long as its node is in it: a node that is split keeps the place after it."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], DraftNode] = {}

    def remember(self, node: DraftNode, offset: int, digest: int) -> None:
        """The place after ``node``, before which stand ``offset`` bytes of that ``digest``."""
        self._known[offset, digest] = node

    def keep(self, nodes: Set[DraftNode]) -> None:
        """The trie has lost all others."""
        self._known = {at: node for at, node in self._known.items() if node in nodes}

    def find(
        self, root: DraftNode, committed: DigestedText, offset: int, digest: int, source: Source
    ) -> DraftNode | None:
        """The place, beyond the ``committed`` text after which the trie's ``root`` stands; made one if it lies inside a
        run. One that ``source`` guessed, else of others as far as they are looked at."""
        known = self._known.get((offset, digest))
        if known is not None and source in known.voices:  # or another text of that digest would divert it
            return known
        found = _looked_for(root, committed, offset, digest, source)
        if found is not None:
            self.remember(found, offset, digest)
        return found


def _looked_for(root: DraftNode, committed: DigestedText, offset: int, digest: int, source: Source) -> DraftNode | None:
    own: list[tuple[DraftNode, int, int, int]] = []  # node, its child, digest and offset before the child
    others: list[tuple[DraftNode, int, int, int]] = []
    left = LOOKED_AT

    def look_after(node: DraftNode, of_node: int, at: int) -> None:
        for byte, run in node.children.items():
            (own if source in run.voices else others).append((node, byte, of_node, at))

    look_after(root, committed.digest, len(committed))
    while own or (others and left > 0):
        is_own = bool(own)
        node, byte, of_node, at = (own or others).pop()
        run = node.children[byte]
        end = at + len(run.text)
        if not is_own:
            left -= max(RUN_COST, min(end, offset) - at)
        if left < 0 and not is_own:
            break
        if end > offset:
            if extend_digest(of_node, run.text[: offset - at]) == digest:
                return node.split(byte, offset - at)
            continue
        if run.digest is None:
            run.digest = extend_digest(of_node, run.text)
        if end < offset:
            look_after(run, run.digest, end)
        elif run.digest == digest:
            return run
    return None
