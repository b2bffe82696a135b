"""A deepened model writes what the model writes that it was made of, and is a large one in its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from benchmarks import deepened
from benchmarks.deepened import deepen, widened
from dragoman import Dragoman
from language_models.causal_lm import CausalLM
from language_models.weights import resolve
from speculation.errors import InputError, UnknownModelError, UnsupportedModelError
from tests.support.tiny_architectures import tiny_architecture
from tests.support.tiny_models import load_tiny
from verifier_service.transformers_engine import TransformersEngine

TEXT = "The heron waits for a"


def logits(model: CausalLM) -> torch.Tensor:
    return model.forward(model.tokenizer.encode(TEXT), model.new_cache())


async def text(model: CausalLM) -> list[int]:
    async with Dragoman(TransformersEngine(model)) as dragoman:
        return (await dragoman.complete(TEXT, max_tokens=24)).token_ids


@pytest.mark.parametrize("kind", ["tiny_llama", "tiny_qwen2", "tiny_gemma"])
async def test_a_deepened_model_computes_the_same(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, dragoman_home: Path
):
    small: Path = request.getfixturevalue(kind)
    done = deepen(str(small), tmp_path / "deep", 8, shard_bytes=100_000)
    model, deep = load_tiny(small), load_tiny(tmp_path / "deep")
    assert done.files > 1, "written file by file"
    assert done.nbytes == 4 * done.parameters
    layers = json.loads((small / "config.json").read_text())["num_hidden_layers"]
    assert deep.parameter_bytes - model.parameter_bytes == 4 * 7 * layers * 3 * 64 * 128
    torch.testing.assert_close(logits(deep), logits(model), rtol=1e-4, atol=1e-4)
    assert await text(deep) == await text(model)


def test_the_weights_are_those_of_a_larger_model(tiny_llama: Path, tmp_path: Path):
    deepen(str(tiny_llama), tmp_path / "deep", 4)
    config = json.loads((tmp_path / "deep" / "config.json").read_text())
    assert config["intermediate_size"] == 4 * 128
    weights: dict[str, torch.Tensor] = {}
    for file in sorted((tmp_path / "deep").glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            weights |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    gate, down = (weights[f"model.layers.1.mlp.{name}_proj.weight"] for name in ("gate", "down"))
    assert gate.shape == (512, 64) and down.shape == (64, 512)
    assert torch.equal(gate[:128], gate[384:]) and torch.equal(down[:, :128], down[:, 384:])
    assert (gate != 0).all() and (down != 0).all(), "a kernel has no zeros to skip"
    left = {file.name for file in (tmp_path / "deep").iterdir()}
    assert {"tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json"} <= left


def test_copies_divide_exactly_or_are_refused():
    weight = torch.randn(6, 5, generator=torch.Generator().manual_seed(1)).bfloat16()
    down = widened("model.layers.0.mlp.down_proj.weight", weight, 32)
    assert torch.equal(down.reshape(6, 32, 5)[:, 7] * 32, weight)
    assert torch.equal(widened("model.layers.0.mlp.up_proj.bias", weight[0], 2), weight[0].repeat(2))
    assert torch.equal(widened("model.layers.0.mlp.down_proj.bias", weight[0], 2), weight[0])
    assert torch.equal(widened("model.layers.0.self_attn.q_proj.weight", weight, 2), weight)
    with pytest.raises(UnsupportedModelError, match=r"dividing by 16 rounds some of its weights in torch\.float16"):
        widened("model.layers.0.mlp.down_proj.weight", torch.full((1, 1), 1e-7).half(), 16)


@pytest.mark.parametrize(
    "name, reason",
    [
        ("gpt2", "no single intermediate_size"),
        ("phi3", r"tensors of another kind: model\.layers\.0\.mlp\.gate_up_proj\.weight"),
        ("mixtral", "0 of its 2 layers have an mlp.gate_proj.weight"),
        ("qwen2_moe", r"tensors of another kind: model\.layers\.0\.mlp\."),
        ("bitnet", "tensors of another kind: .*sub_norm"),
        ("starcoder2", "tensors of another kind"),
    ],
)
def test_other_mlps_are_refused(name: str, reason: str, tmp_path: Path, shared_tokenizer: Path):
    model = tiny_architecture(name, tmp_path / name, tokenizer=shared_tokenizer)
    with pytest.raises(UnsupportedModelError, match=reason):
        deepen(str(model), tmp_path / "deep", 2)
    assert not (tmp_path / "deep").exists(), "nothing is written"


def test_quantised_weights_are_refused(tmp_path: Path, shared_tokenizer: Path):
    model = tiny_architecture("llama", tmp_path / "llama", tokenizer=shared_tokenizer)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "fp8"}}))
    with pytest.raises(UnsupportedModelError, match="llama is quantised"):
        deepen(str(model), tmp_path / "deep", 2)


@pytest.mark.parametrize("times", [0, 1, 3, 24])
def test_what_divides_inexactly_is_refused(times: int, tiny_llama: Path, tmp_path: Path):
    with pytest.raises(InputError, match=f"times={times}: is no power of two"):
        deepen(str(tiny_llama), tmp_path / "deep", times)


def test_a_folder_in_use_or_too_small_is_refused(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match="is there already"):
        deepen(str(tiny_llama), tiny_llama, 2)
    with pytest.raises(InputError, match="is no folder"):
        deepen("somebody/model", tmp_path / "deep", 2)
    usage = deepened.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(deepened.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"room for 0\.0 GB"):
        deepen(str(tiny_llama), tmp_path / "deep", 2)


def test_a_folder_half_written_is_no_model(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def breaks(*args: object, **kwargs: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(deepened, "save_file", breaks)
    with pytest.raises(OSError, match="no space"):
        deepen(str(tiny_llama), tmp_path / "deep", 2)
    with pytest.raises(UnknownModelError, match="a folder without config"):
        resolve(str(tmp_path / "deep"))
