"""Moves and page tables wait for the coming pass; what they do is as if each had been done at once."""

from __future__ import annotations

import random

import torch
from torch import nn

from engine.kv_memory import KVMemory
from engine.step_tables import PAGE

PAGES, SLOTS = 6, 3


def memory() -> tuple[KVMemory, nn.Module, nn.Module]:
    """Of two layers that differ in their KV heads; each place holds its own number."""
    wide, narrow = nn.Linear(1, 1), nn.Linear(1, 1)
    made = KVMemory(
        {wide: (4, 2, 3), narrow: (2, 1, 3)},
        pages=PAGES,
        slots=SLOTS,
        pages_per_slot=4,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    for module in (wide, narrow):
        for values in (module.kv_keys, module.kv_values):
            assert isinstance(values, torch.Tensor)
            values.copy_(torch.arange(PAGES * PAGE, dtype=torch.float32)[:, None, None].expand_as(values))
    return made, wide, narrow


def held(module: nn.Module) -> list[int]:
    """The numbers in its places; keys and values of all heads agree."""
    assert isinstance(module.kv_keys, torch.Tensor)
    assert isinstance(module.kv_values, torch.Tensor)
    assert torch.equal(module.kv_keys, module.kv_values)
    assert bool((module.kv_keys == module.kv_keys[:, :1, :1]).all())
    return [int(number) for number in module.kv_keys[:, 0, 0]]


def test_a_move_waits_for_the_coming_pass() -> None:
    made, wide, narrow = memory()
    made.move([20, 21], [18, 19])
    assert held(wide) == list(range(PAGES * PAGE))
    made.apply_pending()
    for module in (wide, narrow):
        assert held(module)[18:22] == [20, 21, 20, 21]
    made.apply_pending()  # of which nothing is left
    assert held(wide)[18:22] == [20, 21, 20, 21]


def test_all_sources_of_a_move_are_read_before_a_target_is_written() -> None:
    made, wide, _ = memory()
    made.move([17, 18, 16], [16, 17, 18])
    made.apply_pending()
    assert held(wide)[16:19] == [17, 18, 16]


def test_moves_that_meet_are_done_in_their_order() -> None:
    """Against doing each at once, on places that are few, so that they meet often."""
    chance = random.Random(5)
    for _ in range(200):
        made, wide, narrow = memory()
        expected = list(range(PAGES * PAGE))
        for _ in range(6):
            count = chance.randrange(1, 5)
            sources, targets = (chance.sample(range(16, 28), count) for _ in range(2))
            made.move(sources, targets)
            for target, number in zip(targets, [expected[source] for source in sources], strict=True):
                expected[target] = number
            if chance.random() < 0.2:
                made.apply_pending()
        made.apply_pending()
        assert held(wide) == held(narrow) == expected


def test_pages_of_several_slots_are_set_for_the_coming_pass() -> None:
    made, _, _ = memory()
    made.set_pages(2, [5, 1])
    made.set_pages(0, [3])
    made.set_pages(2, [5, 1, 4])
    assert not made.page_table.any()
    made.apply_pending()
    assert made.page_table.tolist() == [[3, 0, 0, 0], [0, 0, 0, 0], [5, 1, 4, 0]]
    made.set_pages(2, [2])  # what stood behind it is nobody's
    made.apply_pending()
    assert made.page_table[2, 0] == 2
