"""Tokens that are to be run after what a cache holds, said before they are, so that several caches' can run at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")


class RunsTrees(Protocol):
    """``CausalLM``, or an engine in its place."""

    def forward(self, tokens: Sequence[int], cache: Any) -> Tensor:
        """Run ``tokens`` after what ``cache`` holds: logits [len(tokens), V] float32."""
        ...

    def forward_branches(self, tokens: Sequence[int], cache: Any, tree: TreeRows) -> Tensor:
        """Run tokens of a tree of continuations: logits [len(tokens), V] float32."""
        ...


@dataclass(frozen=True, slots=True)
class TreeRows:
    """Where the tokens of a tree stand, whose root is at position ``base`` of the cache.

    ``above``: of each token the rows, counted from ``base``, of those before it on its path, all in the cache already.
    ``depths``: distance from the root of every row of the tree, those in the cache first.
    """

    base: int
    above: Sequence[Sequence[int]]
    depths: Sequence[int]

    def visible(self) -> Tensor:
        """Which rows each token sees [tokens, rows], itself included."""
        held = len(self.depths) - len(self.above)
        seen = torch.zeros(len(self.above), len(self.depths), dtype=torch.bool)
        for number, rows in enumerate(self.above):
            seen[number, [*rows, held + number]] = True
        return seen


@dataclass(frozen=True, slots=True)
class Continuation:
    """One token after another or, with ``tree``, tokens of one."""

    cache: Any
    tokens: Sequence[int]
    tree: TreeRows | None = None

    def run(self, model: RunsTrees) -> Tensor:
        """Logits [len(tokens), V] float32, in a pass of its own."""
        if self.tree is None:
            return model.forward(self.tokens, self.cache)
        return model.forward_branches(self.tokens, self.cache, self.tree)


def in_groups(items: Iterable[Item], rows: Callable[[Item], int], most: int) -> Iterator[list[Item]]:
    """In their order, as many in each as have ``most`` rows in all; one that has more by itself."""
    group: list[Item] = []
    free = most
    for item in items:
        if group and rows(item) > free:
            yield group
            group, free = [], most
        group.append(item)
        free -= rows(item)
    if group:
        yield group
