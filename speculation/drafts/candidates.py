"""The candidates of one verify step: a small tree of target tokens, cut out of the pool of draft text.

A branch of the pool is retokenised as a whole, so two branches may spell the bytes that they share with different
tokens; then the tree holds both. One forward pass scores every node after its own ancestors (tree attention, SpecInfer,
arXiv 2305.09781, section 4.2), so where the first choice misses, the alternative is committed in the same step.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from speculation.drafts.candidate_node import CandidateNode
from speculation.drafts.draft_node import NO_TRUST
from speculation.drafts.draft_path import DraftPath
from speculation.drafts.draft_pool import DraftPool
from speculation.source import DRAFTER, Source, SourceKind
from speculation.text.byte_vocab import ByteVocab
from speculation.text.retokenize import open_tail, retokenize_after

#: Bytes of draft that a candidate token has at most on average, twice what it mostly has, and that one may have more:
#: a step waits for what it takes to spell them.
_BYTES_PER_TOKEN, _LONG_TOKEN = 8, 16
#: Branches that one step retokenises at most.
MAX_BRANCHES = 8
ROOT = -1


def draft_bytes(tokens: int) -> int:
    """How much draft is looked at for so many candidates in a row."""
    return tokens * _BYTES_PER_TOKEN + _LONG_TOKEN if tokens > 0 else 0


@dataclass(frozen=True, slots=True)
class CandidateTree:
    """``tokens[i]`` continues ``tokens[parents[i]]``, or the committed text where that is ROOT; parents come first.

    ``first_choices``: the candidates on the path that drafters rank first; those of other sources are not in it.
    ``sources``: who guessed each candidate; where several did, the first by ``SourceKind``, trust and arrival.
    ``chances``: that each is accepted, never higher than that of one before it; empty: all are taken to be certain.
    """

    tokens: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()
    first_choices: tuple[int, ...] = ()
    sources: tuple[Source, ...] = ()
    chances: tuple[float, ...] = field(default=(), compare=False)

    @classmethod
    def chain(cls, tokens: Sequence[int], sources: Sequence[Source] | None = None) -> Self:
        """Without branches. ``sources``: by default one drafter."""
        numbers = range(len(tokens))
        parents = tuple(range(ROOT, len(tokens) - 1))
        return cls(tuple(tokens), parents, tuple(numbers), tuple(sources or (DRAFTER for _ in numbers)))

    def __len__(self) -> int:
        return len(self.tokens)

    def first(self, width: int) -> CandidateTree:
        """The tree of the first ``width`` candidates: parents come first, so it is one."""
        first_choices = tuple(node for node in self.first_choices if node < width)
        return CandidateTree(
            tokens=self.tokens[:width],
            parents=self.parents[:width],
            first_choices=first_choices,
            sources=self.sources[:width],
            chances=self.chances[:width],
        )

    def kept(self, keep: Sequence[bool]) -> CandidateTree:
        """The tree of those candidates for which ``keep`` is true: of each, all its ancestors too."""
        numbers = {node: place for place, node in enumerate(itertools.compress(range(len(self)), keep))} | {ROOT: ROOT}
        return CandidateTree(
            tokens=tuple(itertools.compress(self.tokens, keep)),
            parents=tuple(numbers[parent] for parent in itertools.compress(self.parents, keep)),
            first_choices=tuple(numbers[node] for node in self.first_choices if node in numbers),
            sources=tuple(itertools.compress(self.sources, keep)),
            chances=tuple(itertools.compress(self.chances, keep)),
        )

    @property
    def is_chain(self) -> bool:
        return all(parent == node - 1 for node, parent in enumerate(self.parents))

    def child(self, node: int, token: int) -> int | None:
        """The candidate ``token`` after ``node``; None if it is not in the tree."""
        for number in range(node + 1, len(self.tokens)):
            if self.parents[number] == node and self.tokens[number] == token:
                return number
        return None

    @property
    def depth(self) -> int:
        """Candidates in a row on the longest branch."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(1 if parent == ROOT else depths[parent] + 1)
        return max(depths, default=0)

    def beyond(self, node: int, *, without: SourceKind) -> tuple[int, ...]:
        """The likeliest branch after ``node``, or of all where that is ROOT, of other sources than those: a candidate's
        first child is its likeliest."""
        nodes: list[int] = []
        for number in range(node + 1, len(self.tokens)):
            if self.parents[number] == node and self.sources[number].kind is not without:
                nodes.append(node := number)
        return tuple(nodes)

    def path(self, node: int) -> tuple[int, ...]:
        """Nodes from the first candidate down to ``node``."""
        nodes: list[int] = []
        while node != ROOT:
            nodes.append(node)
            node = self.parents[node]
        return tuple(reversed(nodes))


#: Adds candidates to a tree that is being made, at most so many below its root; returns them.
Grow = Callable[[CandidateNode, int], list[CandidateNode]]


def grow_nothing(root: CandidateNode, most: int) -> list[CandidateNode]:
    """The tree is what the pool has."""
    return []


class CandidateBuilder:
    """Cuts candidates out of a pool. ``encode`` turns ordinary text into target ids, special-token parsing off.

    ``free``: so many candidates cost a step nothing, so they are taken however unlikely they are.
    """

    def __init__(self, vocab: ByteVocab, encode: Callable[[str], list[int]], *, may_end: bool, free: int = 0) -> None:
        self.vocab = vocab
        self.free = free
        self._encode = encode
        self._end_id = vocab.end_ids[0] if may_end and vocab.end_ids else None

    def build(
        self,
        pool: DraftPool,
        tail: Sequence[int],
        *,
        width: int,
        threshold: float,
        trust: Mapping[Source, float] = NO_TRUST,
        most: int = 0,
        grow: Grow = grow_nothing,
    ) -> CandidateTree:
        """The ``width`` likeliest candidates, none beyond the free ones less likely than ``threshold``.

        ``tail``: the last committed ids, which retokenisation looks back on. ``trust``: what the chances that a
        source gives are multiplied with. ``grow``: adds candidates that are in no pool; together they may be ``most``,
        if that is more than ``width``.
        """
        root = CandidateNode(None, ROOT, 1.0)
        found, first = self._cut_out(pool, root, tail, width=width, threshold=threshold, trust=trust)
        most = max(width, most)
        found += grow(root, most)
        # A child is never likelier than its parent, and comes after it: the sort keeps the order of equals.
        found.sort(key=lambda node: -node.chance)
        chosen = [node for place, node in enumerate(found[:most]) if place < self.free or node.chance >= threshold]
        numbers = {id(node): number for number, node in enumerate(chosen)} | {id(root): ROOT}
        return CandidateTree(
            tokens=tuple(node.token for node in chosen),
            parents=tuple(numbers[id(node.parent)] for node in chosen),
            first_choices=tuple(numbers[id(node)] for node in first if id(node) in numbers),
            sources=tuple(node.source for node in chosen),
            chances=tuple(node.chance for node in chosen),
        )

    def _cut_out(
        self,
        pool: DraftPool,
        root: CandidateNode,
        tail: Sequence[int],
        *,
        width: int,
        threshold: float,
        trust: Mapping[Source, float],
    ) -> tuple[list[CandidateNode], list[CandidateNode]]:
        """The candidates that the pool has, put below ``root``, and those on its first branch that drafters sent."""
        found: list[CandidateNode] = []
        first: list[CandidateNode] = []
        if width <= 0 or not pool.has_draft:
            return found, first
        after = open_tail(tail, self.vocab)
        for path in itertools.islice(pool.branches(limit=draft_bytes(width), trust=trust), MAX_BRANCHES):
            if found and path.turning_chance <= self._least(found, width, threshold):
                break
            sent = self._add(root, path, after, width, found)
            first = first or sent
        return found, first

    def _least(self, found: list[CandidateNode], width: int, threshold: float) -> float:
        """What a further candidate must be likelier than to be chosen."""
        if len(found) < width:
            return threshold if len(found) >= self.free else 0.0
        return heapq.nlargest(width, (node.chance for node in found))[-1]

    def _add(
        self, root: CandidateNode, path: DraftPath, tail: bytes, limit: int, found: list[CandidateNode]
    ) -> list[CandidateNode]:
        """Returns the nodes whose text drafters sent."""
        node, sent, end = root, list[CandidateNode](), 0
        sent_end = path.sent
        tokens = self.spell(path, tail, limit)
        for token, author in zip(tokens, self.authors(path, tokens), strict=True):
            end += len(self.vocab.bytes_of(token))
            node = self._child(node, token, path.chances[end - 1] if end else 1.0, author, found)
            if end <= sent_end:
                sent.append(node)
        return sent

    def authors(self, path: DraftPath, tokens: Sequence[int]) -> list[Source]:
        """Who guessed each of the tokens that spell a branch: the whole of it, or its last part."""
        lengths = [len(self.vocab.bytes_of(token)) for token in tokens]
        ends = itertools.accumulate(lengths)
        return [path.author(end) if length else path.end_author for length, end in zip(lengths, ends, strict=True)]

    def spell(self, path: DraftPath, tail: bytes, limit: int) -> list[int]:
        """At most ``limit`` tokens that spell a branch behind an open ``tail``, with the end token where it ends."""
        tokens = retokenize_after(tail, path.text, self.vocab, self._encode, limit=limit)
        whole = sum(len(self.vocab.bytes_of(token)) for token in tokens) == len(path.text)
        if path.ends and whole and len(tokens) < limit and self._end_id is not None:
            tokens.append(self._end_id)
        return tokens

    def _child(
        self, node: CandidateNode, token: int, chance: float, source: Source, found: list[CandidateNode]
    ) -> CandidateNode:
        child = node.children.get(token)
        if child is None:
            child = node.add(token, chance, source)
            found.append(child)
        return child
