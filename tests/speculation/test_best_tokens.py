"""Which tokens a row ranks first: those that a sort of the whole row has."""

from __future__ import annotations

import pytest
import torch

from speculation.sampling.best_tokens import BestTokens, best_tokens
from speculation.sampling.on_its_way import OnItsWay

CARD = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CARDS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=[pytest.mark.gpu, CARD]),
    pytest.param("cuda:1", marks=[pytest.mark.gpu, CARDS]),
]


def rows(count: int, size: int, device: str) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(count * size)).to(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [5, 8, 4097, 151_936])
def test_they_are_those_of_a_sort(size: int, device: str):
    logits = rows(3, size, device)
    expected = logits.argsort(-1, descending=True)[:, :8].tolist()
    assert best_tokens(logits, 8) == expected
    [first, second] = BestTokens([logits[:1], logits[1:]], 8).read()
    assert [*first, *second] == expected and len(first) == 1
    assert BestTokens([logits], 8).read() == [expected]


@pytest.mark.parametrize("device", DEVICES)
def test_the_best_may_stand_anywhere(device: str):
    logits = torch.full((4, 9000), -torch.inf, device=device)
    for row, first in enumerate((0, 2047, 4500, 8992)):
        logits[row, first : first + 8] = torch.arange(8, 0, -1, device=device).float()
    expected = [list(range(first, first + 8)) for first in (0, 2047, 4500, 8992)]
    assert best_tokens(logits, 8) == expected


@pytest.mark.gpu
@pytest.mark.parametrize("device", [pytest.param("cuda", marks=CARD), pytest.param("cuda:1", marks=CARDS)])
def test_it_is_waited_for_on_its_own_device(device: str):
    """Whichever card is the thread's own."""
    large = torch.randn(8192, 8192, device=device)
    for number in range(20):
        for _ in range(10):
            torch.mm(large, large)
        assert OnItsWay(torch.full((64,), number, device=device)).read().tolist() == [number] * 64


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_on_its_way_is_read_as_often_as_one_likes(device: str):
    found = OnItsWay(torch.arange(5, device=device))
    assert found.read().tolist() == found.read().tolist() == [0, 1, 2, 3, 4]
    assert found.read().device.type == "cpu"
