"""A model of transformers as a user's program holds it, and a drafter that has dialled in for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from drafter_service.draft_source import Drafter
from dragoman import RemoteDrafting, SpeculationPlan
from language_models.quiet import quiet
from tests.support.service_drivers import drafting
from transport.address import Address

#: Steps wait for a draft, so that there is something to verify, however busy the machine is.
PATIENT = SpeculationPlan(stop_threshold=0.0, patience=2.0)


@dataclass(frozen=True)
class Held:
    """A model and its tokenizer, in float32."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def ids(self, prompt: str) -> torch.Tensor:
        """[1, n]."""
        return self.tokenizer(prompt, return_tensors="pt").input_ids

    async def write(self, prompt: str, **options: Any) -> Any:
        """What ``generate`` returns; greedy, unless asked otherwise. In a thread, as it blocks."""
        ids = self.ids(prompt)
        settings = {"do_sample": False, "attention_mask": torch.ones_like(ids), **options}
        return await asyncio.to_thread(self.model.generate, input_ids=ids, **settings)


def hold(path: Path) -> Held:
    """Of a folder, loaded with nothing but the library's own means."""
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        return Held(model, AutoTokenizer.from_pretrained(path))


@contextlib.asynccontextmanager
async def drafted_by(held: Held, drafter: Drafter, **options: Any) -> AsyncIterator[RemoteDrafting]:
    """With the drafter connected, over a socket. ``options``: of RemoteDrafting."""
    remote = RemoteDrafting(held.model, held.tokenizer, "127.0.0.1:0", **{"plan": PATIENT, "lookup": False, **options})
    await asyncio.to_thread(remote.__enter__)
    try:
        async with drafting(Address.parse(remote.address, field="listen"), drafter):
            await asyncio.to_thread(remote.wait_for_drafters, seconds=120)
            yield remote
    finally:
        await asyncio.to_thread(remote.close)
