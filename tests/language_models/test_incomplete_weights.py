"""Weights that lack something are refused, whatever they lack: transformers would fill it with random numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from language_models import conversions, weights
from language_models.causal_lm import CausalLM
from speculation.errors import WeightsError
from tests.support.tiny_architectures import tiny_architecture
from tests.support.tiny_gguf import tiny_gguf
from tests.support.tiny_models import load_tiny


@pytest.fixture
def folder(tiny_llama: Path, tmp_path: Path) -> Path:
    """A copy of a model, to be damaged."""
    return shutil.copytree(tiny_llama, tmp_path / "model")


def rewrite(folder: Path, *, without: str = "\0", more: dict[str, torch.Tensor] | None = None) -> None:
    """Drop the tensors with ``without`` in their names, and add others."""
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if without not in name}
    save_file(kept | (more or {}), folder / "model.safetensors", metadata={"format": "pt"})


def shard(folder: Path) -> list[Path]:
    """The same weights in three files with an index."""
    tensors = load_file(folder / "model.safetensors")
    names = [f"model-{i:05}-of-00003.safetensors" for i in (1, 2, 3)]
    place = {tensor: names[i % 3] for i, tensor in enumerate(sorted(tensors))}
    for name in names:
        save_file({t: tensors[t] for t in place if place[t] == name}, folder / name, metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    index = {"metadata": {"total_size": 0}, "weight_map": place}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return [folder / name for name in names]


def test_missing_tensors_are_counted_and_named(folder: Path):
    rewrite(folder, without="layers.1.")
    with pytest.raises(
        WeightsError, match=r"lack 9 of 21 tensors: model\.layers\.1\.input_layernorm\.weight, .*\.\.\."
    ):
        load_tiny(folder)


def test_one_expert_of_many_is_missed(tmp_path: Path):
    folder = tiny_architecture("mixtral", tmp_path / "mixtral")
    rewrite(folder, without="0.block_sparse_moe.experts.2.w1")
    with pytest.raises(WeightsError, match="mixtral: some of its tensors cannot be put together: there are too few"):
        load_tiny(folder)


def test_tied_and_needless_tensors_are_no_matter(tiny_qwen2: Path, tmp_path: Path):
    """A tied head is in no file; old checkpoints hold buffers that nobody reads any more."""
    folder = shutil.copytree(tiny_qwen2, tmp_path / "model")
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    rewrite(folder, more={"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)})
    load_tiny(folder)


def test_tensors_of_other_shapes_are_named(folder: Path):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 96}))
    with pytest.raises(WeightsError, match=r"6 of 21 tensors .*down_proj\.weight is \[64, 128\] instead of \[64, 96\]"):
        load_tiny(folder)


def test_a_missing_shard_is_named(folder: Path):
    shards = shard(folder)
    load_tiny(folder)
    shards[1].unlink()
    with pytest.raises(
        WeightsError, match=r"1 of its 3 files of weights are missing: model-00002-of-00003\.safetensors"
    ):
        load_tiny(folder)


def test_a_shard_that_lacks_what_the_index_promises(folder: Path):
    shards = shard(folder)
    tensors = load_file(shards[2])
    lost = sorted(tensors)[0]
    del tensors[lost]
    save_file(tensors, shards[2], metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=f"lack 1 of 21 tensors: {lost}"):
        load_tiny(folder)


@pytest.mark.parametrize(
    "damage, words",
    {
        "cut short": (lambda file: file.write_bytes(file.read_bytes()[:-100]), "cut short or damaged"),
        "no header": (lambda file: file.write_bytes(bytes(40)), "cut short or damaged"),
        "empty": (lambda file: file.write_bytes(b""), "cut short or damaged"),
        "a pointer": (lambda file: file.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "Git LFS"),
        "absent": (lambda file: file.unlink(), "there are no weights"),
    }.values(),
    ids=["cut short", "no header", "empty", "a pointer", "absent"],
)
def test_damaged_files_are_named(folder: Path, damage: Callable[[Path], object], words: str):
    damage(folder / "model.safetensors")
    with pytest.raises(WeightsError, match=words) as caught:
        load_tiny(folder)
    assert str(folder) in caught.value.message and caught.value.remedy


# ---- GGUF


def test_a_gguf_file_that_lacks_tensors_is_not_converted(tiny_qwen2: Path, tmp_path: Path, dragoman_home: Path):
    [file] = tiny_gguf(tiny_qwen2, tmp_path / "lacking.gguf", keep=lambda name: not name.startswith("blk.1."))
    with pytest.raises(WeightsError, match=r"lacking\.gguf is incomplete: its files lack 12 of 26 tensors"):
        weights.resolve(str(file))
    assert conversions.conversions() == []


@pytest.mark.parametrize("given", [0, 1, 2])
def test_any_part_of_a_split_file_stands_for_all(tiny_qwen2: Path, tmp_path: Path, dragoman_home: Path, given: int):
    [whole] = tiny_gguf(tiny_qwen2, tmp_path / "whole" / "tiny.gguf")
    parts = tiny_gguf(tiny_qwen2, tmp_path / "parts" / "tiny.gguf", parts=3)
    assert [part.name for part in parts] == [f"tiny-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    joined, plain = (CausalLM.load(str(file), dtype="float32") for file in (parts[given], whole))
    assert joined.name == plain.name == "tiny"
    assert weights.resolve(str(parts[0])) == weights.resolve(str(parts[given])), "converted once"
    ids = plain.tokenizer.encode("The heron waits")
    logits = [model.forward(ids, model.new_cache()) for model in (joined, plain)]
    assert torch.equal(*logits)
    assert (
        joined.tokenizer.vocab.content_hash == plain.tokenizer.vocab.content_hash and joined.tokenizer.has_chat_template
    )


def test_a_missing_part_is_named(tiny_qwen2: Path, tmp_path: Path, dragoman_home: Path):
    parts = tiny_gguf(tiny_qwen2, tmp_path / "tiny.gguf", parts=3)
    parts[1].unlink()
    with pytest.raises(WeightsError, match=r"one of 3 files, and its folder lacks tiny-00002-of-00003\.gguf"):
        weights.resolve(str(parts[0]))


@pytest.mark.parametrize("number", [0, 1])
def test_a_part_under_another_name_says_what_it_is(tiny_qwen2: Path, tmp_path: Path, dragoman_home: Path, number: int):
    parts = tiny_gguf(tiny_qwen2, tmp_path / "tiny.gguf", parts=3)
    renamed = parts[number].rename(tmp_path / "renamed.gguf")
    with pytest.raises(WeightsError, match=r"renamed\.gguf") as caught:
        weights.resolve(str(renamed))
    assert f"file {number + 1} of 3" in caught.value.remedy and "llama-gguf-split --merge" in caught.value.remedy


def test_parts_that_do_not_belong_together(tiny_qwen2: Path, tmp_path: Path, dragoman_home: Path):
    parts = tiny_gguf(tiny_qwen2, tmp_path / "tiny.gguf", parts=3)
    third = parts[2].read_bytes()
    parts[2].write_bytes(parts[0].read_bytes())
    with pytest.raises(WeightsError, match=r"00003-of-00003\.gguf is file 1 of 3 by its metadata"):
        weights.resolve(str(parts[0]))
    parts[2].write_bytes(third[:-1000])
    with pytest.raises(WeightsError, match=r"00003-of-00003\.gguf is cut short or damaged"):
        weights.resolve(str(parts[0]))
    other = tiny_gguf(tiny_qwen2, tmp_path / "other" / "tiny.gguf", parts=3, keep=lambda name: "blk.1.ffn" not in name)
    parts[2].write_bytes(other[2].read_bytes())
    with pytest.raises(WeightsError, match=r"parts .* have \d+ tensors of 26"):
        weights.resolve(str(parts[0]))


def test_what_an_older_converter_made_of_a_file_is_made_anew(tiny_qwen2: Path, tmp_path: Path, dragoman_home: Path):
    """It looked for nothing that was missing. Its manifest has no version."""
    [file] = tiny_gguf(tiny_qwen2, tmp_path / "tiny.gguf")
    folder = Path(weights.resolve(str(file)).source)
    made = (folder / "model.safetensors").read_bytes()
    manifest = json.loads((folder / conversions.MANIFEST).read_text())
    assert manifest.pop("version") == conversions.VERSION
    (folder / conversions.MANIFEST).write_text(json.dumps(manifest))
    (folder / "model.safetensors").write_bytes(bytes(len(made)))
    assert weights.resolve(str(file)).source == str(folder)
    assert (folder / "model.safetensors").read_bytes() == made


def test_the_suffix_may_be_in_capitals(tiny_qwen2: Path, tmp_path: Path, dragoman_home: Path):
    [file] = tiny_gguf(tiny_qwen2, tmp_path / "TINY.GGUF")
    assert CausalLM.load(str(file), dtype="float32").name == "TINY"
    parts = tiny_gguf(tiny_qwen2, tmp_path / "cut" / "tiny.gguf", parts=2)
    parts = [part.rename(part.with_suffix(".GGUF")) for part in parts]
    assert weights.resolve(str(parts[1])).name == "tiny"


class Booby:
    """Runs when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("beside", ["nothing", "an index", "safetensors"])
def test_pickled_weights_are_not_read(folder: Path, tmp_path: Path, beside: str):
    """They may run code. Beside safetensors they do no harm."""
    mark = tmp_path / "ran"
    torch.save({"model.norm.weight": Booby(mark)}, folder / "pytorch_model.bin")
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert mark.exists(), "it would"
    mark.unlink()
    if beside == "safetensors":
        load_tiny(folder)
    else:
        (folder / "model.safetensors").unlink()
        if beside == "an index":
            (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "pytorch_model.bin"}}))
        with pytest.raises(WeightsError, match=r"pickled ones \(pytorch_model\.bin\) are not read.*safetensors"):
            load_tiny(folder)
    assert not mark.exists()
