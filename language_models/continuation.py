"""Tokens that are to be run after what a cache holds, said before they are, so that several caches' can run at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from torch import Tensor

Item = TypeVar("Item")


class RunsTrees(Protocol):
    """``CausalLM``, or an engine in its place."""

    def forward(self, tokens: Sequence[int], cache: Any) -> Tensor:
        """Run ``tokens`` after what ``cache`` holds: logits [len(tokens), V] float32."""
        ...

    def forward_tree(self, tokens: Sequence[int], cache: Any, *, base: int, visible: Tensor, depths: Tensor) -> Tensor:
        """Run tokens of a tree of continuations, see ``CausalLM.forward_tree``: logits [len(tokens), V] float32."""
        ...


@dataclass(frozen=True, slots=True)
class TreeRows:
    """Where the tokens of a tree stand: ``base``, ``visible`` and ``depths`` of ``CausalLM.forward_tree``."""

    base: int
    visible: Tensor
    depths: Tensor


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
        rows = self.tree
        return model.forward_tree(self.tokens, self.cache, base=rows.base, visible=rows.visible, depths=rows.depths)


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
