"""The self-test at load: what it refuses and in which words, and what it lets through."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AttentionInterface

from language_models import causal_lm, kv_cache
from language_models.attention import ROW_INVARIANT, row_invariant_attention
from language_models.causal_lm import CausalLM
from language_models.causal_self_test import SelfTest, self_test
from language_models.kv_cache import KVCache
from language_models.pretrained import load_pretrained
from language_models.weights import resolve
from speculation.errors import UnsupportedModelError
from tests.support.cpu_kernels import needs_bfloat16
from tests.support.tiny_architectures import tiny_architecture
from verifier_service.transformers_engine import TransformersEngine

# ---- architectures ------------------------------------------------------------------------------------------------

REFUSED = [
    ("gpt_neo", {"window_size": 24}, r"a tree of two branches beyond its window of 24 tokens gives other logits"),
    ("roberta", {}, r"one pass over the text without a KV cache at the start gives other logits"),
    ("gemma3_text, bidirectional", {}, r"one pass over the text without a KV cache at the start gives other logits"),
    ("openai-gpt", {}, r"a prompt at the start: the KV cache holds no tokens where 8 went in"),
    ("bloom", {}, r"takes no positions from outside"),
    ("mpt", {}, r"takes no positions from outside"),
    ("falcon, ALiBi", {}, r"takes no positions from outside"),
]


@pytest.mark.parametrize("dtype", ["float32", "float16", pytest.param("bfloat16", marks=needs_bfloat16)])
@pytest.mark.parametrize(("name", "settings", "words"), REFUSED, ids=[name for name, _, _ in REFUSED])
def test_a_model_whose_text_would_depend_on_the_drafts_is_refused(
    architecture, name: str, settings, words: str, dtype: str
):
    with pytest.raises(UnsupportedModelError, match=rf"cannot be served: .*{words}"):
        architecture(name, dtype, **settings)


SERVED = ["gemma3n_text", "gemma4_text", "roberta, decoder", "gpt2", "opt", "gpt_neox", "phi3, longrope", "gpt_oss"]


@pytest.mark.parametrize("dtype", ["float32", "float16", pytest.param("bfloat16", marks=needs_bfloat16)])
@pytest.mark.parametrize("name", [*SERVED, "llama, dynamic RoPE", "mistral", "mixtral", "xglm"])
def test_models_that_are_causal_in_other_ways_pass(architecture, name: str, dtype: str):
    model = architecture(name, dtype)
    assert model.self_test.places[0] == "at the start"
    assert model.self_test.places[-1] == f"at the end of its context ({model.context_length:,})"
    assert not model.self_test.unproven
    if dtype != "float16":  # whose rows depend on their number on some processors
        assert not model.self_test.row_dependence


def test_windows_and_borders_are_reached(architecture):
    assert "beyond its window of 16 tokens" in architecture("gemma3_text").self_test.places
    assert "where its rotary frequencies change (64)" in architecture("phi3, longrope").self_test.places


def test_a_window_that_no_text_reaches_is_none(architecture):
    assert architecture("mistral", sliding_window=4096).self_test.places == (
        "at the start",
        "at the end of its context (256)",
    )


def test_keys_that_memory_cannot_hold_are_said_to_be_unproven(architecture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("language_models.causal_self_test.free_bytes", lambda device: 1000)
    assert architecture("mistral").self_test.unproven == ("its window of 16 tokens, whose keys take too much memory",)


def test_a_drafter_in_int8_is_tried_before_it_is_quantised(architecture):
    assert architecture("llama", "int8").self_test.places
    with pytest.raises(UnsupportedModelError, match="a tree of two branches"):
        architecture("gpt_neo", "int8")


# ---- models that were broken on purpose ---------------------------------------------------------------------------


def broken(architecture, name: str, harm: Callable[[CausalLM], None]) -> SelfTest:
    """The self-test of a model that passes, and then is harmed."""
    model = architecture(name)
    harm(model)
    return self_test(model)


def attention_with(monkeypatch: pytest.MonkeyPatch, change: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
    """Attention that changes its mask."""

    def attention(module, query, key, value, attention_mask, **kwargs):
        return row_invariant_attention(module, query, key, value, change(attention_mask), **kwargs)

    monkeypatch.setitem(AttentionInterface._global_mapping, ROW_INVARIANT, attention)


def test_attention_without_a_mask_is_caught(architecture, monkeypatch: pytest.MonkeyPatch):
    found = broken(architecture, "llama", lambda _: attention_with(monkeypatch, lambda mask: None))
    assert found.faults[0].startswith("one pass over the text without a KV cache at the start gives other logits")


def test_a_branch_that_sees_the_other_is_caught(architecture, monkeypatch: pytest.MonkeyPatch):
    plain = KVCache.tree_mask

    def everything_before(self, base, visible, positions):
        return plain(self, base, torch.ones_like(visible).tril(), positions)

    found = broken(architecture, "llama", lambda _: monkeypatch.setattr(KVCache, "tree_mask", everything_before))
    assert found.faults[0].startswith("a tree of two branches at the start gives other logits")


@pytest.mark.parametrize("window", [17, 15])
def test_a_window_of_one_token_more_or_less_is_caught(architecture, monkeypatch: pytest.MonkeyPatch, window: int):
    """In trees alone: chains have the masks of transformers."""
    plain = kv_cache.CacheLayer.tree_mask

    def other_window(self, *args):
        if self._window is None:
            return plain(self, *args)
        self._window, kept = window, self._window
        try:
            return plain(self, *args)
        finally:
            self._window = kept

    harm = lambda _: monkeypatch.setattr(kv_cache.CacheLayer, "tree_mask", other_window)  # noqa: E731
    for name in ("mistral", "gemma3_text"):
        found = broken(architecture, name, harm)
        assert found.faults[0].startswith("a tree of two branches beyond its window of 16 tokens gives other logits")
        monkeypatch.setattr(kv_cache.CacheLayer, "tree_mask", plain)


def test_a_layer_that_loses_a_row_is_caught(architecture, monkeypatch: pytest.MonkeyPatch):
    plain = kv_cache.CacheLayer.update

    def forgetful(self, key_states, value_states, *args, **kwargs):
        result = plain(self, key_states, value_states, *args, **kwargs)
        self.rollback(int(self is lost))
        return result

    model = architecture("llama")
    create = model.new_cache
    lost = None

    def new_cache(**kwargs):
        nonlocal lost
        cache = create(**kwargs)
        lost = cache.cache.layers[1]
        return cache

    monkeypatch.setattr(model, "new_cache", new_cache)
    monkeypatch.setattr(kv_cache.CacheLayer, "update", forgetful)
    assert self_test(model).faults == ("a prompt at the start: the KV cache holds 7 and 8 tokens where 8 went in",)


def test_a_kept_branch_that_is_the_other_one_is_caught(architecture, monkeypatch: pytest.MonkeyPatch):
    plain = kv_cache.CacheLayer.keep_rows

    def keep_the_first(self, base: int, rows: torch.Tensor) -> None:
        plain(self, base, torch.arange(len(rows)))

    harm = lambda _: monkeypatch.setattr(kv_cache.CacheLayer, "keep_rows", keep_the_first)  # noqa: E731
    found = broken(architecture, "llama", harm)
    assert found.faults[0].startswith("a kept branch of a tree, continued at the start gives other logits")


def test_a_rollback_that_leaves_rows_behind_is_caught(architecture, monkeypatch: pytest.MonkeyPatch):
    """One layer of two; and all of them, whose lengths then agree with one another."""
    plain = kv_cache.CacheLayer.rollback
    for every_layer in (False, True):

        def late(self, tokens: int, every_layer: bool = every_layer) -> None:
            plain(self, max(0, tokens - (every_layer or self.is_sliding)))

        harm = lambda _, late=late: monkeypatch.setattr(kv_cache.CacheLayer, "rollback", late)  # noqa: E731
        found = broken(architecture, "gemma3_text", harm)
        assert "the KV cache holds" in found.faults[0]
        monkeypatch.setattr(kv_cache.CacheLayer, "rollback", plain)


def test_forgetting_too_much_is_caught(architecture, monkeypatch: pytest.MonkeyPatch):
    """A layer with a window that keeps no slack, and says that it does."""
    plain = kv_cache.CacheLayer.forget_old

    def forgets_the_window(self):
        plain(self)
        if self._window is not None and self._start > self._origin:
            self.keys[:, :, : self._used - 4] = 0

    harm = lambda _: monkeypatch.setattr(kv_cache.CacheLayer, "forget_old", forgets_the_window)  # noqa: E731
    found = broken(architecture, "mistral", harm)
    assert "beyond its window of 16 tokens gives other logits" in found.faults[0]


def test_padding_that_runs_out_of_the_context_is_caught(architecture):
    """Rows that only fill up a step, and stand where the text would go on."""
    model = architecture("gpt2")
    plain = model.module.forward

    def forward(**inputs):
        if "position_ids" in inputs and "attention_mask" not in inputs:  # a chain
            positions = inputs["position_ids"]
            inputs["position_ids"] = positions[:, :1] + torch.arange(positions.shape[1])
        return plain(**inputs)

    model.module.forward = forward
    (fault,) = self_test(model).faults
    assert fault == "one token at a time at the end of its context (256) fails: IndexError: index out of range in self"


def test_frequencies_by_the_largest_position_of_a_call_are_caught(architecture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(causal_lm, "fix_frequencies", lambda model: None)
    with pytest.raises(UnsupportedModelError, match=r"where its rotary frequencies change \(64\) gives other logits"):
        architecture("phi3, longrope")


def test_logits_that_are_no_numbers_are_caught(architecture):
    def harm(model: CausalLM) -> None:
        model.module.lm_head.weight.data[5] = torch.nan

    model = architecture("llama")
    harm(model)
    assert self_test(model).faults


@needs_bfloat16
def test_bits_that_depend_on_the_number_of_rows_are_caught(architecture, monkeypatch: pytest.MonkeyPatch):
    """By a hair, in a step of many rows: no fault of the structure, and no target in this dtype."""
    model = architecture("llama", "bfloat16")
    TransformersEngine(model)
    head = model.module.lm_head.forward

    def other_sums(x: torch.Tensor) -> torch.Tensor:
        return head(x) * (1 + 2**-7 * (x.shape[-2] > 8))

    model.module.lm_head.forward = other_sums
    model.self_test = self_test(model)
    assert not model.self_test.faults
    assert model.self_test.row_dependence.startswith(
        "a step of 32 tokens after a roll-back at the start gives other bits"
    )
    with pytest.raises(UnsupportedModelError, match=r"bfloat16 on this CPU cannot be a target.*float32"):
        TransformersEngine(model)


@needs_bfloat16
def test_a_dtype_of_our_choice_keeps_bits(architecture, monkeypatch: pytest.MonkeyPatch, caplog):
    """Where bfloat16 does not, ``auto`` is float32, and says so."""
    plain = causal_lm.tested

    def found(model: CausalLM, files) -> SelfTest:
        return SelfTest(row_dependence="sums differ") if model.dtype_name == "bfloat16" else plain(model, files)

    monkeypatch.setattr(causal_lm, "tested", found)
    assert architecture("llama", "bfloat16").self_test.row_dependence == "sums differ"
    chosen = architecture("llama", "auto")
    assert chosen.dtype_name == "float32" and not chosen.self_test.row_dependence
    assert "llama is loaded in float32: in bfloat16 sums differ" in caplog.text
    TransformersEngine(chosen)


def test_float16_on_a_cpu_is_served_with_a_warning(architecture, caplog):
    """It promises no bits: other numbers of rows are other kernels on many processors."""
    model = architecture("llama", "float16")
    model.self_test = SelfTest(row_dependence="sums differ")
    TransformersEngine(model)
    assert "near-ties may depend on the drafts: sums differ" in caplog.text


@needs_bfloat16
@pytest.mark.parametrize(("name", "chosen"), [("llama", "sdpa"), ("gpt_oss", "eager"), ("gpt_neo", "eager")])
def test_beyond_cpus_a_model_has_the_best_attention_that_it_knows(
    tmp_path: Path, shared_tokenizer: Path, name: str, chosen: str
):
    """Not every model has a fused one: asked for it, transformers would refuse to load them."""
    files = resolve(str(tiny_architecture(name, tmp_path / "model", tokenizer=shared_tokenizer)))
    model = load_pretrained(files, dtype=torch.float32, device=torch.device("cpu"), attention=None)
    assert model.config._attn_implementation == chosen
