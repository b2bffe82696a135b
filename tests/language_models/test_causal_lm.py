"""Models and KV caches against the plain forward pass without a cache."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, LlamaConfig

from language_models import causal_lm, kv_cache
from language_models.causal_lm import CausalLM
from language_models.causal_self_test import SelfTest
from language_models.kv_cache import KVCache, layer_windows
from language_models.packed_linear import LEAST_ROWS
from language_models.weights import ModelFiles
from speculation.errors import InputError, ModelError, UnsupportedModelError
from speculation.protocol.messages import SpeculationPlan
from tests.support.cpu_kernels import needs_bfloat16
from verifier_service.transformers_engine import TransformersEngine
from verifier_service.verifier import Verifier

FAMILIES = ["tiny_llama", "tiny_qwen2", "tiny_gemma"]


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request: pytest.FixtureRequest) -> tuple[CausalLM, torch.nn.Module]:
    path: Path = request.getfixturevalue(request.param)
    plain = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    return CausalLM.load(str(path), dtype="float32", device="cpu"), plain


STEPS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=8)


@settings(max_examples=25)
@given(prompt=st.integers(1, 40), steps=STEPS, seed=st.integers(0, 1000))
def test_any_appends_and_rollbacks_equal_the_plain_forward(loaded, prompt: int, steps, seed: int):
    model, plain = loaded
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 300, (prompt,), generator=generator).tolist()
    cache = model.new_cache()
    model.prefill(ids, cache)
    for appended, undone in steps:
        new = torch.randint(3, 300, (appended,), generator=generator).tolist()
        ids += new
        logits = model.forward(new, cache)
        with torch.inference_mode():
            expected = plain(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -appended:]
        torch.testing.assert_close(logits, expected, atol=2e-4, rtol=1e-4)
        undone = min(undone, len(ids) - 1)
        cache.rollback(undone)
        del ids[len(ids) - undone :]
        assert cache.length == len(ids)


def test_sliding_layers_forget_and_still_roll_back(tiny_gemma: Path, monkeypatch: pytest.MonkeyPatch):
    """Far beyond window + slack the memory stays bounded, and the last ``slack`` tokens can be undone."""
    monkeypatch.setattr(kv_cache, "SLACK", 24)
    model = CausalLM.load(str(tiny_gemma), dtype="float32", device="cpu")
    plain = AutoModelForCausalLM.from_pretrained(tiny_gemma, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 300, (300,), generator=generator).tolist()
    cache = model.new_cache()
    for start in range(0, 300, 10):
        model.prefill(ids[start : start + 10], cache)
    layers = cache.cache.layers
    sliding = [layer for layer in layers if layer.is_sliding]
    assert sliding and all(layer.get_mask_sizes(0)[0] <= 16 + 2 * 24 + 10 for layer in sliding), "keys held"
    assert 24 <= cache.max_rollback < 300
    with pytest.raises(ValueError, match="roll back"):
        cache.rollback(cache.max_rollback + 1)
    cache.rollback(24)
    new = ids[5:9]
    logits = model.forward(new, cache)
    with torch.inference_mode():
        expected = plain(input_ids=torch.tensor([ids[:-24] + new]), use_cache=False).logits[0, -4:]
    torch.testing.assert_close(logits, expected, atol=2e-4, rtol=1e-4)


@needs_bfloat16
@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_rows_do_not_depend_on_how_many_run_together(family: str, request: pytest.FixtureRequest):
    """Bit for bit, on a CPU: what makes speculation exact in bfloat16 too."""
    model = CausalLM.load(str(request.getfixturevalue(family)), dtype="bfloat16", device="cpu")
    ids = torch.randint(3, 300, (96,), generator=torch.Generator().manual_seed(1)).tolist()

    def rows(width: int) -> torch.Tensor:
        cache = model.new_cache()
        model.prefill(ids[:32], cache)
        return torch.cat([model.forward(ids[at : at + width], cache) for at in range(32, 96, width)])

    one = rows(1)
    for width in (2, 4, 8, 16, 32):
        assert torch.equal(rows(width), one), f"{width} rows at once give other bits than one"


def test_the_cache_grows_by_doubling_and_counts_its_memory(tiny_llama: Path):
    model = CausalLM.load(str(tiny_llama), dtype="float32", device="cpu")
    cache = model.new_cache()
    assert cache.nbytes == 0
    model.prefill([5] * 10, cache)
    first = cache.nbytes
    model.prefill([5] * 300, cache)
    assert cache.nbytes == 2 * first
    assert first == 2 * 2 * 2 * 256 * 16 * 4  # keys and values, layers, heads, tokens, head size, float32


def test_a_pass_that_fails_behind_its_layers_leaves_the_cache_as_it_was(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
):
    """No memory for the logits, say: what was run beside the last row as padding stands for no token of the text."""
    model = CausalLM.load(str(tiny_llama), dtype="float32", device="cpu")
    cache = model.new_cache()
    model.prefill(list(range(10, 30)), cache)
    plain = torch.nn.Linear.forward

    def failing(layer: torch.nn.Linear, rows: torch.Tensor) -> torch.Tensor:
        if layer.out_features == model.vocab_size:
            raise MemoryError("no memory for the logits")
        return plain(layer, rows)

    with monkeypatch.context() as patched:
        patched.setattr(torch.nn.Linear, "forward", failing)
        with pytest.raises(MemoryError):
            model.forward([5], cache)
    assert cache.lengths == {20}
    expected = model.forward([*range(10, 30), 5], model.new_cache())[-1]
    assert torch.allclose(model.forward([5], cache)[-1], expected, atol=1e-4)


def test_int8_is_close_to_float32(tiny_llama: Path):
    ids = list(range(10, 40))
    exact = CausalLM.load(str(tiny_llama), dtype="float32", device="cpu")
    quick = CausalLM.load(str(tiny_llama), dtype="int8", device="cpu")
    assert quick.dtype_name == "int8"
    a = exact.forward(ids, exact.new_cache()).softmax(-1)
    b = quick.forward(ids, quick.new_cache()).softmax(-1)
    assert (a - b).abs().sum(-1).mean() / 2 < 0.1, "total variation distance"


def test_int8_is_no_targets_dtype(tiny_llama: Path):
    """Its activations are scaled by all rows of a step."""
    with pytest.raises(InputError, match=r"dtype='int8'.*drafters"):
        TransformersEngine(CausalLM.load(str(tiny_llama), dtype="int8", device="cpu"))


WIDEST = SpeculationPlan.MAX_TOKENS


@pytest.mark.parametrize(("dtype", "most"), [("bfloat16", 31), ("float16", 31), ("float32", WIDEST)])
def test_steps_of_16_bit_numbers_on_a_cpu_are_not_too_wide(tiny_llama: Path, dtype: str, most: int):
    engine = TransformersEngine(CausalLM.load(str(tiny_llama), dtype=dtype, device="cpu"))
    assert engine.max_draft_tokens == most
    Verifier(engine, plan=SpeculationPlan(width=most)).shutdown()
    if most < WIDEST:
        with pytest.raises(InputError, match=rf"width={most + 1}.*{dtype} on cpu.*{most} at most"):
            Verifier(engine, plan=SpeculationPlan(width=most + 1))


@pytest.mark.parametrize("threads", [0, None])
def test_no_number_of_threads_leaves_torch_its_own(tiny_llama: Path, threads: int | None, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", None)
    CausalLM.load(str(tiny_llama), device="cpu", threads=threads)


def test_bad_options_name_the_field(tiny_llama: Path):
    with pytest.raises(InputError, match=r"dtype='float8'.*float32"):
        CausalLM.load(str(tiny_llama), dtype="float8")
    with pytest.raises(InputError, match="device='warp'"):
        CausalLM.load(str(tiny_llama), device="warp")
    with pytest.raises(InputError, match="threads=-1"):
        CausalLM.load(str(tiny_llama), threads=-1)
    model = CausalLM.load(str(tiny_llama), dtype="float32", device="cpu")
    with pytest.raises(InputError, match="context"):
        model.forward([1] * 513, model.new_cache())


def test_broken_weights_are_a_clear_error(tiny_llama: Path, tmp_path: Path):
    for file in tiny_llama.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=tmp_path.name):
        CausalLM.load(str(tmp_path))


def test_models_that_cannot_roll_back_are_refused():
    config = LlamaConfig(num_hidden_layers=2)
    assert layer_windows(config) == [None, None]
    assert KVCache(config).length == 0
    config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(UnsupportedModelError, match="linear_attention"):
        layer_windows(config)


# ---- what is told while a model is loaded ---------------------------------------------------------------------------


def stages_of(path: Path, dtype: str) -> list[str]:
    """The stages of a load that are told, each once if it is told as begun and as done."""
    told: list[tuple[str, int, int]] = []
    CausalLM.load(str(path), dtype=dtype, device="cpu", progress=lambda *step: told.append(step))
    stages = [stage for stage, done, _ in told if done == 0]
    assert told == [(stage, done, 1) for stage in stages for done in (0, 1)]
    return stages


def test_each_stage_of_a_load_is_told_once(tiny_llama: Path, dragoman_home: Path):
    assert stages_of(tiny_llama, "float32") == ["loading weights", "self-test"]


@needs_bfloat16
def test_a_second_load_has_stages_of_its_own(tiny_llama: Path, dragoman_home: Path, monkeypatch: pytest.MonkeyPatch):
    def found(model: CausalLM, files: ModelFiles) -> SelfTest:
        if model.dtype_name == "float32":
            return SelfTest()
        packed = model.least_rows == LEAST_ROWS
        return SelfTest(faults=("of packed weights",)) if packed else SelfTest(row_dependence="sums differ")

    monkeypatch.setattr(causal_lm, "tested", found)
    once, unpacked, exact = (
        [f"{stage}{how}" for stage in ("loading weights", "self-test")]
        for how in ("", " again, unpacked", " again, in float32")
    )
    # Weights are packed where that keeps bits on this processor.
    assert stages_of(tiny_llama, "auto") in (once + unpacked + exact, once + exact)
