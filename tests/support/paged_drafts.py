"""A tiny model in the paged engine, as a drafter has it, and what it is offered."""

from __future__ import annotations

from pathlib import Path

import torch

from engine.paged_model import PagedModel
from speculation.protocol.messages import Prompt, SessionOffer, SpeculationPlan
from speculation.sampling.params import Rule, SamplingParams
from tests.support.tiny_models import load_tiny

KV_BYTES = 4 << 20


def paged(folder: Path, **options: int) -> PagedModel:
    """For four sessions."""
    return PagedModel(load_tiny(folder), max_sessions=4, kv_bytes=options.get("kv_bytes", KV_BYTES))


def offer(sampling: SamplingParams, rule: Rule = Rule.RACE) -> SessionOffer:
    """Some text is committed already."""
    return SessionOffer(
        session="s",
        prompt=Prompt(text="The heron waits and"),
        sampling=sampling,
        rule=rule,
        committed=b" the",
        zero_width=0,
        plan=SpeculationPlan(),
    )


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """But for the last digits, which passes of other sizes round differently."""
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
