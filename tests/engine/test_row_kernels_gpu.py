"""The kernels of a decoder's pass on a card: their references' results, and a row's bits whatever the others are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine import reference_rows
from engine.early_kernels import starts_early
from engine.paged_engine import PagedEngine
from language_models.causal_lm import CausalLM
from tests.support import tiny_architectures

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

#: Outputs and inputs: of 135M, 1.5B and 8B models, and such as no tile divides.
SHAPES = [(960, 576), (576, 1536), (2048, 1536), (1536, 8960), (6144, 4096), (4096, 14_336), (96, 80), (1056, 672)]


def numbers(*shape: int, seed: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    generator = torch.Generator("cuda").manual_seed(seed)
    return torch.randn(shape, generator=generator, device="cuda", dtype=dtype)


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


@pytest.fixture(params=[False, True], ids=["in turn", "early"])
def early(request) -> bool:
    if request.param and not starts_early(torch.device("cuda")):
        pytest.skip("this card starts no kernel early")
    return request.param


@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
@pytest.mark.parametrize("rows", [16, 64])
def test_products(outputs: int, inputs: int, rows: int, early: bool):
    from engine.row_products import gated_product, partial_product

    x, weight = numbers(rows, inputs, seed=1), numbers(outputs, inputs, seed=2) / inputs**0.5
    found = partial_product(x, weight, early=early)
    assert distance(found.sum(0), x.double() @ weight.double().t()) < 1e-5
    both = numbers(2 * outputs, inputs, seed=3) / inputs**0.5
    gated = gated_product(x, both, early=early)
    assert distance(gated, reference_rows.gated_product(x, both)) < 4e-3
    # The last row by itself, at another place, beside others.
    moved = numbers(rows, inputs, seed=4)
    moved[2] = x[-1]
    assert torch.equal(partial_product(moved, weight, early=early)[:, 2], found[:, -1])
    assert torch.equal(gated_product(moved, both, early=early)[2], gated[-1])


@pytest.mark.parametrize("width", [64, 576, 4096, 5120])
@pytest.mark.parametrize("parts", [0, 1, 5])
def test_adding_and_norm(width: int, parts: int, early: bool):
    from engine.row_kernels import add_and_norm

    residual, gain = numbers(64, width, seed=1), numbers(width, seed=2)
    added = numbers(parts, 64, width, seed=3, dtype=torch.float32) if parts else None
    expected_residual = residual.clone()
    expected = reference_rows.add_and_norm(expected_residual, added, gain, 1e-5)
    found = add_and_norm(residual, added, gain, 1e-5, early=early)
    assert distance(residual, expected_residual) < 1e-3
    assert distance(found, expected) < 4e-3


@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(9, 3, 64), (32, 8, 128), (4, 4, 16), (40, 8, 128)])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("normed", [False, True])
def test_rotation(heads: int, kv_heads: int, size: int, biased: bool, normed: bool, early: bool):
    from engine.row_kernels import rotate_and_write

    width = (heads + 2 * kv_heads) * size
    turned = [numbers(16, size // 2, seed=seed).clamp(-1, 1).repeat(1, 2) for seed in (2, 3)]
    write = torch.randperm(40, generator=torch.Generator().manual_seed(6))[:16].cuda()
    parts = numbers(3, 16, width, seed=7, dtype=torch.float32)

    def run(function: Callable[..., torch.Tensor]) -> tuple[torch.Tensor, ...]:
        keys, values = (numbers(40, kv_heads, size, seed=seed) for seed in (8, 9))
        q = function(
            parts,
            bias=numbers(width, seed=1) if biased else None,
            rotation=(turned[0], turned[1]),
            gains=(numbers(size, seed=4), numbers(size, seed=5)) if normed else None,
            eps=1e-5,
            write=write,
            keys=keys,
            values=values,
            heads=heads,
            early=early,
        )
        return q, keys, values

    found, expected = run(rotate_and_write), run(reference_rows.rotate_and_write)
    assert all(distance(mine, right) < 4e-3 for mine, right in zip(found, expected, strict=True))
    untouched = [place for place in range(40) if place not in write.tolist()]
    assert all(
        torch.equal(mine[untouched], right[untouched]) for mine, right in zip(found[1:], expected[1:], strict=True)
    )


@pytest.mark.parametrize("name", ["llama", "llama, llama3 RoPE", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_every_family_is_checked_with_it(name: str, dtype: str, tmp_path: Path, shared_tokenizer: Path):
    """An engine compares its own logits with transformers', and their bits in several companies, when it is made."""
    folder = tiny_architectures.tiny_architecture(
        name, tmp_path / "model", tokenizer=shared_tokenizer, head_dim=16, hidden_size=64, intermediate_size=96
    )
    engine = PagedEngine(CausalLM.load(str(folder), device="cuda", dtype=dtype), kv_bytes=1 << 24, exact=False)
    assert all(shape.decoder is not None for shape in engine.step_shapes)
    engine.close()
