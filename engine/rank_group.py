"""The processes that compute one model together, each on a device of its own: tensor parallelism.

Each rank holds a part of every layer's weights (Megatron-LM, arXiv 1909.08053, section 3). What two products of a layer
then lack, the others' part of the sum, is gathered, and every rank adds the parts in the order of the ranks. An
all-reduce would move less, but among more than two ranks the order in which it adds an element depends on where in the
message that stands: a row's bits would depend on its place in the step.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from engine.instructions import Instruction, OtherRanks
from engine.sharding import keep_part

#: For what the others have to do before it; a large model is read and moved by one rank after the other.
_PATIENCE = datetime.timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Rank:
    """One of ``size`` processes of one host. ``store``: a file that they find each other by, new for each group."""

    number: int
    size: int
    store: Path


class RankGroup:
    """This process's place among those that hold a model together; see ``language_models/shards.py``.

    Made by all of them, as it waits for the others; a process is in one group at a time. Raises RuntimeError if they
    do not come.
    """

    def __init__(self, rank: Rank, device: torch.device) -> None:
        self.rank, self.size, self.device = rank.number, rank.size, device
        self._others: OtherRanks | None = None
        on_gpu = device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(device)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=dist.FileStore(str(rank.store), rank.size),
            rank=rank.number,
            world_size=rank.size,
            timeout=_PATIENCE,
        )

    def lead(self, others: OtherRanks) -> None:
        """From now on those do what this rank does; before that, each by itself does the same."""
        self._others = others

    def leading(self, instruction: Instruction) -> AbstractContextManager[None]:
        """The others, if they are led, do the same as the block."""
        return contextlib.nullcontext() if self._others is None else self._others.leading(instruction)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """One rank after the other."""
        for _ in range(self.rank):
            self.least(0)
        yield
        for _ in range(self.size - self.rank):
            self.least(0)

    def keep_part(self, model: Any, name: str) -> None:
        """Of the weights that of this rank, see ``sharding.py``."""
        keep_part(model, name, rank=self.rank, size=self.size)

    def all_agree(self, flag: bool) -> bool:
        """Whether it is true in all."""
        return bool(self.least(int(flag)))

    def least(self, number: int) -> int:
        """The smallest of what the ranks have; each has to ask."""
        found = torch.tensor([number])
        dist.all_reduce(found, dist.ReduceOp.MIN)
        return int(found)

    def close(self) -> None:
        """Nothing can be computed together any more; those that are led end."""
        if self._others is not None:
            self._others.close()
        dist.destroy_process_group()


class Alone:
    """A group of one, which waits for nobody."""

    size = 1

    def leading(self, instruction: Instruction) -> AbstractContextManager[None]:
        """There is nobody to be told."""
        return contextlib.nullcontext()

    def least(self, number: int) -> int:
        """Its own."""
        return number

    def close(self) -> None:
        """Nothing is held."""


ALONE = Alone()
Group = RankGroup | Alone
