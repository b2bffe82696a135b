"""Faults in the paged engine's memory, on a CPU and on a card."""

from __future__ import annotations

import random

import torch

from engine.paged_engine import PagedEngine
from speculation.drafts.candidates import CandidateTree
from speculation.verification.step import Step


def check_that_nan_stays_in_its_session(engine: PagedEngine) -> None:
    """Not in a step beside others, nor in the pages that it leaves."""
    assert not engine.shares_prefixes, "or the pages would be another's by right"
    chance = random.Random(7)
    prompts = [[chance.randrange(5, 300) for _ in range(length)] for length in (75, 150)]
    draft = CandidateTree.chain([chance.randrange(5, 300) for _ in range(6)])
    whole = engine.pool.free_pages
    spoiled, sound = (engine.open(prompt) for prompt in prompts)
    expected = sound.step(prompts[1][-1], draft)
    for module in engine.memory.modules:
        for values in (module.kv_keys, module.kv_values):
            assert isinstance(values, torch.Tensor)
            for position in range(0, 74, 9):
                values[spoiled.place(position)] = torch.nan
    batch = [(spoiled, Step(prompts[0][-1], draft)), (sound, Step(prompts[1][-1], draft))]
    found = [logits.clone() for logits in engine.step(batch)]
    assert found[0].isnan().all()
    assert torch.equal(found[1], expected)
    others = engine.pool.allocate(engine.pool.free_pages)  # so that what comes next takes the pages of these two
    spoiled.close()
    sound.close()
    again = engine.open(prompts[1])
    assert torch.equal(again.step(prompts[1][-1], draft), expected)
    again.close()
    engine.pool.free(others)
    assert engine.pool.free_pages == whole
