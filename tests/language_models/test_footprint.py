"""How much memory weights take, from the headers of their files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from language_models import footprint
from language_models.causal_lm import CausalLM
from language_models.footprint import check_fits, free_bytes, weights_bytes
from language_models.weights import ModelFiles, resolve
from speculation.errors import ModelTooLargeError

CPU = torch.device("cpu")


def files(folder: Path) -> ModelFiles:
    return ModelFiles(folder.name, str(folder), local=True)


def shard(path: Path, **tensors: tuple[str, list[int]]) -> None:
    header = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]} for name, (dtype, shape) in tensors.items()
    }
    data = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    path.write_bytes(len(data).to_bytes(8, "little") + data)


@pytest.mark.parametrize("family", ["tiny_llama", "tiny_qwen2", "tiny_gemma"])
def test_what_is_foretold_is_what_is_loaded(family: str, request: pytest.FixtureRequest):
    folder = request.getfixturevalue(family)
    foretold = weights_bytes(resolve(str(folder)), torch.float32)
    loaded = CausalLM.load(str(folder), dtype="float32")
    # Buffers, such as the rotary frequencies, are computed when loading.
    buffers = sum(buffer.nbytes for buffer in loaded.module.buffers())
    assert foretold == loaded.parameter_bytes - buffers


def test_the_dtype_and_all_shards_count(tmp_path: Path):
    shard(tmp_path / "model-1.safetensors", a=("F32", [10, 10]), b=("I64", [3]))
    shard(tmp_path / "model-2.safetensors", c=("BF16", [7]))
    assert weights_bytes(files(tmp_path), torch.float32) == 4 * 107 + 24
    assert weights_bytes(files(tmp_path), torch.bfloat16) == 2 * 107 + 24


def test_what_cannot_be_known_is_not_held_against_a_model(tmp_path: Path):
    assert weights_bytes(files(tmp_path), torch.float32) is None
    assert weights_bytes(ModelFiles("org/absent", "org/absent", local=False), torch.float32) is None
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 20)
    assert weights_bytes(files(tmp_path), torch.float32) == 20
    check_fits(files(tmp_path), torch.float32, torch.device("meta"))


def test_too_large_says_how_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shard(tmp_path / "model.safetensors", a=("F32", [1 << 20, 1 << 10]))
    monkeypatch.setattr(footprint, "free_bytes", lambda device: 3 << 30)
    with pytest.raises(ModelTooLargeError) as caught:
        check_fits(files(tmp_path), torch.float32, CPU)
    assert "in float32 take 4.0 GiB, and 3.0 GiB are free on cpu" in caught.value.message
    check_fits(files(tmp_path), torch.bfloat16, CPU)


def test_free_memory_is_the_least_of_machine_and_container(monkeypatch: pytest.MonkeyPatch):
    free = free_bytes(CPU)
    assert free is not None and free > 0
    monkeypatch.setattr(footprint, "_container_room", lambda: 1000)
    assert free_bytes(CPU) == 1000


def test_of_several_gpus_each_needs_room_for_its_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tensors = {"model.layers.0.mlp.up_proj.weight": ("F32", [1 << 20, 1 << 10]), "lm_head.weight": ("F32", [1 << 28])}
    shard(tmp_path / "model.safetensors", **tensors)  # 4 GiB, of which each has a part, and 1
    monkeypatch.setattr(footprint, "free_bytes", lambda device: 3 << 30)
    check_fits(files(tmp_path), torch.float32, CPU, parts=2)
    monkeypatch.setattr(footprint, "free_bytes", lambda device: 2 << 30)
    with pytest.raises(ModelTooLargeError, match=r"take 3\.0 GiB on each of 2 GPUs, and 2\.0 GiB are free"):
        check_fits(files(tmp_path), torch.float32, CPU, parts=2)
