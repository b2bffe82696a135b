"""Rotary frequencies that change with the position, in the paged engine: those of transformers, without a look at the
positions, which is nothing that a CUDA graph can take."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from engine.paged_engine import PagedEngine
from language_models.causal_lm import CausalLM
from speculation.drafts.candidates import CandidateTree

NONE = CandidateTree()


@pytest.mark.parametrize("name", ["phi3, longrope", "llama, dynamic RoPE"])
def test_a_text_across_the_border_has_the_logits_of_transformers(name: str, architecture: Callable[..., CausalLM]):
    plain = architecture(name)
    engine = PagedEngine(architecture(name), kv_bytes=4 << 20)
    tokens = [5 + at % 40 for at in range(80)]  # the frequencies of one of them change at 64
    expected = plain.forward(tokens, plain.new_cache())
    slot = engine.open(tokens[:50])
    for at in range(50, 80):
        found = slot.step(tokens[at - 1], NONE)
        slot.keep([0])
        torch.testing.assert_close(found[0], expected[at - 1], rtol=1e-4, atol=1e-4)
    slot.close()
