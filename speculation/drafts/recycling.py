"""Drafting in one session from what the target nearly said (``recycled_tokens.py``).

It costs no distance and no model, so it fills what drafters leave free of a step: the tree of their candidates is
grown, at its root and behind each of them, best first. (The paper's tree is of one shape, and of nothing else.)
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from typing import Final, Self

from speculation.drafts.candidate_node import CandidateNode
from speculation.drafts.candidates import CandidateTree
from speculation.drafts.recycled_tokens import CONTEXT, RecycledTokens
from speculation.protocol.session_request import SessionRequest
from speculation.source import RECYCLED
from speculation.text.byte_vocab import ByteVocab

#: Candidates of a step, at most, where the text is held to a guide: each is tried on it.
GUIDED_WIDTH: Final = 8
#: Candidates that are less likely are not worth the time for which they keep the host; where tokens are drawn, each row
#: takes a GPU some 40 microseconds besides.
LEAST_GREEDY, LEAST_DRAWN = 0.004, 0.02
#: The same where no row is free, as on a CPU, whatever the plan is made for.
LEAST_COSTLY: Final = 0.1


class Recycling:
    """``tokens``: what is known, of this text and those that it may learn from. ``width``: candidates that a step may
    have with these, whatever the plan; at least as many as the plan says. ``greedy``: nothing is drawn. ``drafts``:
    which tokens may be candidates. ``ends``: those that end a text, behind which nothing comes.
    """

    def __init__(
        self,
        tokens: RecycledTokens,
        *,
        width: int,
        greedy: bool,
        drafts: Callable[[int], bool] = lambda token: True,
        ends: Sequence[int] = (),
    ) -> None:
        self.width = width
        self._tokens = tokens
        self._least = self._worth = (LEAST_GREEDY if greedy else LEAST_DRAWN) if width else LEAST_COSTLY
        self._drafts = drafts
        self._ends = ends
        self._before: tuple[int, ...] = ()  # the last tokens before the candidates of the step that runs

    @classmethod
    def of(cls, request: SessionRequest, vocab: ByteVocab, tokens: RecycledTokens, *, width: int) -> Self:
        """For a text; what would end it is a candidate only if it may end there."""
        ends = () if request.ignore_end else vocab.end_ids
        return cls(
            tokens,
            width=width,
            greedy=request.sampling.greedy,
            drafts=lambda token: bool(vocab.bytes_of(token)) or token in ends,
            ends=ends,
        )

    def begin(self, tail: Sequence[int], least: float = 0.0) -> None:
        """The coming step follows ``tail``, the last committed ids. ``least``: how likely a candidate has to be."""
        self._before = tuple(tail[-CONTEXT:])
        self._least = max(self._worth, least)

    def grow(self, root: CandidateNode, most: int) -> list[CandidateNode]:
        """At most so many candidates more in the tree below ``root``, the likeliest first."""
        turns: list[tuple[float, int, CandidateNode, tuple[int, ...], int]] = []
        order = itertools.count()

        def offer(node: CandidateNode, context: tuple[int, ...]) -> None:
            if context and context[-1] in self._ends:
                return
            for token, chance in zip(*self._tokens.after(context), strict=False):
                if (likely := chance * node.chance) < self._least:
                    return
                if token not in node.children and self._drafts(token):
                    heapq.heappush(turns, (-likely, next(order), node, context, token))

        there = [(root, self._before)]
        while there:
            node, context = there.pop()
            offer(node, context)
            there += [(child, _behind(context, token)) for token, child in node.children.items()]
        grown: list[CandidateNode] = []
        while turns and len(grown) < most:
            unlikely, _, node, context, token = heapq.heappop(turns)
            grown.append(node.add(token, -unlikely, RECYCLED))
            offer(grown[-1], _behind(context, token))
        return grown

    def settle(self, tokens: Sequence[int]) -> None:
        """These were committed in the step. Before ``hear``."""
        context = self._before
        for token in tokens:
            self._tokens.settle(context, token)
            context = _behind(context, token)

    def hear(self, tree: CandidateTree, best: Sequence[Sequence[int]], rows: Sequence[int] | None = None) -> None:
        """What the target ranks first after rows of the step: those of ``rows``, or all, row 0 after the last committed
        token and row i + 1 after candidate i of ``tree``."""
        contexts = [self._before]
        for token, parent in zip(tree.tokens, tree.parents, strict=True):
            contexts.append(_behind(contexts[parent + 1], token))
        for row, tokens in zip(range(len(contexts)) if rows is None else rows, best, strict=True):
            if contexts[row] and contexts[row][-1] not in self._ends:
                self._tokens.hear(contexts[row], tokens)


def _behind(context: tuple[int, ...], token: int) -> tuple[int, ...]:
    return (*context, token)[-CONTEXT:]
