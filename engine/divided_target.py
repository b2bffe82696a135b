"""A target that several GPUs of one host hold together, as every rank makes it."""

from __future__ import annotations

import atexit
import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
import torch.distributed as dist

from engine.followers import Followers, end_process
from engine.paged_choice import no_memory
from engine.paged_engine import PagedEngine
from engine.rank_group import Rank, RankGroup
from engine.sharding import check_plan
from language_models.causal_lm import CausalLM, Progress
from language_models.config import read_config
from language_models.placement import device_of
from language_models.tokenizer_check import Role, check_tokenizer
from language_models.weights import resolve
from speculation.errors import DragomanError, InputError

#: Seconds in which a follower that has ended is known to have.
_NOTICED: Final = 1.0


@dataclass(frozen=True, slots=True)
class DividedTarget:
    """``device``: of the first rank; the others have the next ones. ``kv_bytes``: of each GPU. See ``CausalLM.load``
    and ``PagedEngine`` for the rest.
    """

    model: str
    device: str = "cuda"
    dtype: str = "auto"
    threads: int | None = None
    trust_remote_code: bool = False
    kv_bytes: int | None = None
    max_sessions: int = 64
    prefix_caching: bool = True
    exact: bool = True

    def engine(self, rank: Rank) -> PagedEngine:
        """That of a rank; each waits for the others. Raises InputError, ModelError."""
        return self._engine(RankGroup(rank, _device_of(rank.number, self.device)))

    def lead(
        self,
        size: int,
        *,
        progress: Progress | None = None,
        on_loss: Callable[[DragomanError], None] = end_process,
    ) -> PagedEngine:
        """The engine of the first of ``size`` ranks, once all are there. Raises InputError, ModelError."""
        check_devices(size, self.device)
        files = resolve(self.model, trust_remote_code=self.trust_remote_code, progress=progress)
        check_plan(files.name, read_config(files), size)
        folder = tempfile.TemporaryDirectory(prefix="dragoman-ranks-")
        with contextlib.ExitStack() as closing:
            # Last the file that the group looks at as long as it is there, and the group once nobody waits in it.
            closing.callback(folder.cleanup)
            store = Path(folder.name) / "store"
            followers = Followers(self, size, store, on_loss=on_loss)
            closing.callback(followers.close)
            try:
                group = RankGroup(Rank(0, size, store), _device_of(0, self.device), check=followers.check)
                closing.callback(dist.destroy_process_group)
                closing.callback(followers.close)
                engine = self._engine(group, progress)
            except Exception as error:
                raise followers.ended(within=_NOTICED) or error from None
            group.lead(followers, closing.pop_all())
        atexit.register(engine.close)  # or graphs would outlive the group
        return engine

    def _engine(self, group: RankGroup, progress: Progress | None = None) -> PagedEngine:
        model = CausalLM.load(
            self.model,
            device=str(group.device),
            dtype=self.dtype,
            threads=self.threads,
            trust_remote_code=self.trust_remote_code,
            progress=progress,
            shards=group,
        )
        check_tokenizer(model.tokenizer, Role.TARGET, model.name)
        try:
            return PagedEngine(
                model,
                kv_bytes=self.kv_bytes,
                max_sessions=self.max_sessions,
                prefix_caching=self.prefix_caching,
                exact=self.exact,
                group=group,
            )
        except torch.OutOfMemoryError as error:
            raise no_memory(model) from error


def check_devices(size: int, device: str) -> None:
    """Raises InputError if there are not so many GPUs."""
    first = device_of(device)
    if first.type == "cuda" and (there := torch.cuda.device_count() - (first.index or 0)) < size:
        remedy = "give no more than there are (nvidia-smi lists them; CUDA_VISIBLE_DEVICES hides some)"
        raise InputError(
            "tensor-parallel", size, f"needs so many GPUs, and there are {there} from {first} on", remedy=remedy
        )


def _device_of(rank: int, device: str) -> torch.device:
    """``device``: as it was resolved by the first rank, on whose GPU the others are not to have anything."""
    first = torch.device(device)
    return torch.device("cuda", (first.index or 0) + rank) if first.type == "cuda" else first
