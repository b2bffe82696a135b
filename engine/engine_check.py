"""Does the engine compute what the model computed before it was taken over, and the same bits in every company?

Run once when an engine is made, on the real weights: a wrong mask or position would change texts without a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from speculation.drafts.candidates import CandidateTree
from speculation.errors import ModelError

if TYPE_CHECKING:
    from engine.paged_engine import Loaded, PagedEngine

#: Tokens that are run: more than a block of keys holds.
TOKENS = 80
#: Of these the last ones are looked at.
LOOKED_AT = 5
#: Between logits that are right, in parts of their size. bfloat16 differs by some per cent where sums are grouped in
#: another way; a wrong mask or position by about one.
TOLERANCE = {"float32": 1e-3, "float16": 0.1, "bfloat16": 0.25}


def check_tokens(vocab_size: int) -> list[int]:
    return torch.randint(0, vocab_size, (TOKENS,), generator=torch.Generator().manual_seed(0)).tolist()


@torch.inference_mode()
def plain_logits(model: Loaded) -> Tensor:
    """[LOOKED_AT, V] float32, by the model as transformers runs it, without a cache."""
    ids = torch.tensor([check_tokens(model.vocab_size)], device=model.device)
    return model.module(input_ids=ids, use_cache=False).logits[0, -LOOKED_AT:].float()


def check_engine(engine: PagedEngine, expected: Tensor) -> None:
    """Raises ModelError naming what differs. Leaves no page behind."""
    tokens = check_tokens(engine.vocab_size)
    chain = _chain(engine, tokens)
    distance = float((chain - expected).norm() / expected.norm())
    if not distance <= TOLERANCE[engine.dtype_name]:  # nor NaN
        raise _differs(engine, f"logits are {distance:.2f} of their size away from those of transformers")
    exact = engine.dtype_name != "float32"  # there a CPU's sums differ in the last place, which decides no token
    for company, found in (("one by one", _one_by_one(engine, tokens)), ("in a tree", _in_a_tree(engine, tokens))):
        same = torch.equal(found, chain) if exact else torch.allclose(found, chain, rtol=1e-3, atol=1e-3)
        if not same:
            raise _differs(engine, f"tokens that run {company} have other logits than in a row")


def _chain(engine: PagedEngine, tokens: list[int]) -> Tensor:
    slot = engine.open(tokens[: -LOOKED_AT + 1])
    try:
        return slot.step(tokens[-LOOKED_AT], CandidateTree.chain(tokens[-LOOKED_AT + 1 :]))
    finally:
        slot.close()


def _one_by_one(engine: PagedEngine, tokens: list[int]) -> Tensor:
    slot = engine.open(tokens[: -LOOKED_AT + 1])
    rows = []
    try:
        for token in tokens[-LOOKED_AT:]:
            rows.append(slot.step(token, CandidateTree())[0])
            slot.keep([0])
    finally:
        slot.close()
    return torch.stack(rows)


def _in_a_tree(engine: PagedEngine, tokens: list[int]) -> Tensor:
    """Each draft token with a sibling before it, and one that is not taken after all."""
    slot = engine.open(tokens[: -LOOKED_AT + 1])
    draft = tokens[-LOOKED_AT + 1 :]
    nodes: list[int] = []
    parents: list[int] = []
    taken = [0]
    last = -1
    for token in draft:
        nodes += [tokens[0], token]
        parents += [last, last]
        last = len(nodes) - 1
        taken.append(1 + last)
    try:
        return slot.step(tokens[-LOOKED_AT], CandidateTree(tuple(nodes), tuple(parents)))[taken]
    finally:
        slot.close()


def _differs(engine: PagedEngine, problem: str) -> ModelError:
    return ModelError(
        f"{engine.name} does not run right in the paged engine: {problem}", remedy="--engine transformers"
    )
