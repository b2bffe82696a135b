"""The self-test at load, pass by pass: faults that show in one of its passes alone, and how many passes it takes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from torch import Tensor

from language_models.causal_lm import CausalLM
from language_models.causal_self_test import self_test
from language_models.kv_cache import CacheLayer
from tests.support.cpu_kernels import needs_bfloat16

#: What the docstring of ``self_test`` says: of all, and for each window.
PASSES, PASSES_OF_A_WINDOW = 25, 11


def passes_of(model: CausalLM) -> int:
    """How many times a self-test runs the model."""
    plain, passes = model.module.forward, 0

    def counted(**inputs: Any) -> Any:
        nonlocal passes
        passes += 1
        return plain(**inputs)

    model.module.forward = counted
    try:
        assert not self_test(model).faults
    finally:
        model.module.forward = plain
    return passes


def test_keys_that_only_a_long_rollback_spoils_are_caught(architecture, monkeypatch: pytest.MonkeyPatch):
    """Longer than any step of the self-test has rows: nothing but its roll-back of a window shows them."""
    plain, model = CacheLayer.rollback, architecture("mistral")

    def spoiling(self: CacheLayer, tokens: int) -> None:
        plain(self, tokens)
        if tokens > 32:
            self.keys.zero_()

    monkeypatch.setattr(CacheLayer, "rollback", spoiling)
    [fault] = self_test(model).faults
    assert re.match(r"a roll-back of \d+ tokens beyond its window of 16 tokens gives other logits", fault), fault


def test_a_prompt_that_does_not_go_on_from_its_first_chunk_is_caught(architecture, monkeypatch: pytest.MonkeyPatch):
    """A layer that loses what the first chunk left there, which no prompt in one piece does."""
    plain, model = CacheLayer.update, architecture("llama")

    def losing(self: CacheLayer, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if self.get_seq_length() == 1:
            self.keys[:, :, :1] = 0
        return plain(self, keys, values, *args, **kwargs)

    monkeypatch.setattr(CacheLayer, "update", losing)
    [fault] = self_test(model).faults
    assert fault.startswith("a prompt in two chunks at the start gives other logits")


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=needs_bfloat16)])
def test_it_takes_as_few_passes_as_it_says(architecture, dtype: str):
    without, one = passes_of(architecture("llama", dtype)), passes_of(architecture("mistral", dtype))
    assert without <= PASSES and one - without <= PASSES_OF_A_WINDOW
