"""The processes that compute one model together, each on a device of its own: tensor parallelism.

Each rank holds a part of every layer's weights (Megatron-LM, arXiv 1909.08053, section 3). What two products of a layer
then lack, the others' part of the sum, is gathered, and every rank adds the parts in the order of the ranks. An
all-reduce would move less, but among more than two ranks the order in which it adds an element depends on where in the
message that stands: a row's bits would depend on its place in the step.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist

from engine import gathered_parts, sharding
from engine.instructions import Instruction, OtherRanks

#: For what the others do meanwhile: a download, say. That one is lost is not noticed by waiting.
_PATIENCE: Final = datetime.timedelta(days=1)
#: All ranks are on one host, and what they say to each other is nobody's business on its network.
_LOOPBACK: Final = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
_POLL_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Rank:
    """One of ``size`` processes of one host. ``store``: a file that they find each other by, new for each group."""

    number: int
    size: int
    store: Path


def _nothing() -> None:
    """Nobody to look after."""


class RankGroup:
    """This process's place among those that hold a model together; see ``language_models/shards.py``.

    Made by all of them, as it waits for the others; a process is in one group at a time. ``check``: called while it
    waits; raises what is the matter with the others. Raises RuntimeError if they do not come.
    """

    def __init__(self, rank: Rank, device: torch.device, *, check: Callable[[], None] = _nothing) -> None:
        self.rank, self.size, self.device = rank.number, rank.size, device
        self._others: OtherRanks | None = None
        self._check = check
        self._turns = 0
        self._closing = contextlib.ExitStack()
        on_gpu = device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(device)
        for variable in _LOOPBACK:
            os.environ.setdefault(variable, "lo")
        self._store = dist.FileStore(str(rank.store), rank.size)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=self._store,
            rank=rank.number,
            world_size=rank.size,
            timeout=_PATIENCE,
        )

    def lead(self, others: OtherRanks, closing: contextlib.ExitStack) -> None:
        """From now on those do what this rank does; before that, each by itself does the same. ``closing``: what is to
        be undone as the group is closed, itself included."""
        self._others = others
        self._closing = closing

    def leading(self, instruction: Instruction) -> AbstractContextManager[None]:
        """The others, if they are led, do the same as the block."""
        return contextlib.nullcontext() if self._others is None else self._others.leading(instruction)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """One rank after the other. Those that wait can be interrupted."""
        self._wait_for(self._turns + self.rank)
        yield
        self._store.add("turns", 1)
        self._turns += self.size
        self._wait_for(self._turns)

    def _wait_for(self, turns: int) -> None:
        while self._store.add("turns", 0) < turns:
            self._check()
            time.sleep(_POLL_SECONDS)

    def keep_part(self, model: Any, name: str) -> None:
        """Of the weights that of this rank, see ``sharding.py``."""
        sharding.keep_part(model, name, rank=self.rank, size=self.size)

    def code(self) -> bytes:
        """A digest of what decides about a divided model's logits."""
        files = (sharding.__file__, gathered_parts.__file__, __file__)
        return hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).digest()

    def all_agree(self, flag: bool) -> bool:
        """Whether it is true in all."""
        return bool(self.least(int(flag)))

    def least(self, number: int) -> int:
        """The smallest of what the ranks have; each has to ask."""
        found = torch.tensor([number])
        dist.all_reduce(found, dist.ReduceOp.MIN)
        return int(found)

    def close(self) -> None:
        """Nothing can be computed together any more. Graphs that have captured it are to be gone. Idempotent."""
        self._closing.close()


class Alone:
    """A group of one, which waits for nobody."""

    size = 1

    def leading(self, instruction: Instruction) -> AbstractContextManager[None]:
        """There is nobody to be told."""
        return contextlib.nullcontext()

    def all_agree(self, flag: bool) -> bool:
        """Its own."""
        return flag

    def least(self, number: int) -> int:
        """Its own."""
        return number

    def close(self) -> None:
        """Nothing is held."""


ALONE: Final = Alone()
Group = RankGroup | Alone
