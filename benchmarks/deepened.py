"""A checkpoint that computes what a small model computes, at the cost of a large one.

Every neuron of every MLP stands several times, and the output weight of each copy is divided by how many there are: a
power of two, so that nothing is rounded. What the model writes stays that of the small one; what a step reads and
multiplies is that of a large one, and no weight is zero. So a real target of any size can be measured with real
drafters where only small weights are at hand.

    python -m benchmarks.deepened qwen2.5-coder-1.5b deep --times 16
"""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.command import run_command
from language_models.conversions import MANIFEST
from language_models.pretrained import check_files
from language_models.weights import ModelFiles, resolve
from speculation.errors import InputError, UnsupportedModelError
from speculation.plural import count_of

#: Bytes of a file of weights, and how many are written at once. Each is in memory twice while it is.
SHARD_BYTES, WRITERS = 1 << 30, 4
_MLP = re.compile(r"\.layers\.(\d+)\.mlp\.")
_GATED = re.compile(r"\.layers\.\d+\.mlp\.(gate|up|down)_proj\.(weight|bias)$")
_WEIGHTS = ("gate_proj.weight", "up_proj.weight", "down_proj.weight")
#: Of a model's folder, what is copied: tokenizer, templates, defaults of generation.
_COPIED = {".json", ".jinja", ".model", ".txt"}
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_OWN = {"config.json", _INDEX, MANIFEST}
#: Bytes of an element, by the names of safetensors.
_ITEMSIZE = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8, "I16": 2, "I32": 4, "I64": 8}


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in its file, and the shape that it gets."""

    name: str
    file: Path
    shape: tuple[int, ...]
    itemsize: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.itemsize


@dataclass(frozen=True, slots=True)
class Deepened:
    """What was written."""

    folder: Path
    parameters: int
    nbytes: int
    files: int


def copies(name: str, shape: tuple[int, ...], times: int) -> tuple[int, ...]:
    """How often a tensor stands along each of its dimensions: (1, 1, ...) for all but those of gated MLPs."""
    found = _GATED.search(name)
    if found is None or found[0].endswith("down_proj.bias"):
        return (1,) * len(shape)
    return (1, times) if found[1] == "down" else (times, *(1,) * (len(shape) - 1))


def widened(name: str, tensor: Tensor, times: int) -> Tensor:
    """The tensor for ``times`` copies of every neuron: weights of ``down_proj`` [H, I] become [H, times * I] and are
    divided by ``times``, those of the two others [I, H] become [times * I, H], all else stays.

    Raises UnsupportedModelError if dividing rounds.
    """
    repeats = copies(name, tuple(tensor.shape), times)
    if max(repeats, default=1) == 1:
        return tensor
    if name.endswith("down_proj.weight"):
        divided = tensor / times
        if not torch.equal(divided * times, tensor):
            raise UnsupportedModelError(
                f"{name}: dividing by {times} rounds some of its weights in {tensor.dtype}",
                remedy="use weights in bfloat16 or float32, or fewer copies",
            )
        tensor = divided
    return tensor.repeat(*repeats)


def deepen(model: str, folder: Path, times: int, *, shard_bytes: int = SHARD_BYTES) -> Deepened:
    """Write ``model`` with ``times`` copies of every neuron to ``folder``, its config last: a folder without one is
    not taken for a model.

    Raises InputError for ``times`` or a folder that cannot be used, UnsupportedModelError for a model without gated
    MLPs, and what ``resolve`` raises.
    """
    if times < 2 or times & (times - 1):
        raise InputError("times", times, "is no power of two", remedy="give 2, 4, 8, 16, ...: dividing by it is exact")
    files = resolve(model)
    source = _folder_of(files)
    config = _config(files.name, source)
    tensors = _stored(source, times)
    _check_gated(files.name, config, tensors, times)
    total = sum(tensor.nbytes for tensor in tensors)
    _make(folder, total)
    shards = _shards(tensors, shard_bytes)
    names = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]

    def write(name: str, shard: list[Stored]) -> None:
        save_file({one.name: _read(one, times) for one in shard}, folder / name, metadata={"format": "pt"})

    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(write, names, shards))
    index = {one.name: name for name, shard in zip(names, shards, strict=True) for one in shard}
    described = {"metadata": {"total_size": total}, "weight_map": index}
    (folder / _INDEX).write_text(json.dumps(described, indent=1) + "\n")
    for file in source.iterdir():
        if file.suffix in _COPIED and file.name not in _OWN:
            shutil.copyfile(file, folder / file.name)
    config["intermediate_size"] *= times
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    parameters = sum(math.prod(tensor.shape) for tensor in tensors)
    return Deepened(folder, parameters=parameters, nbytes=total, files=len(shards))


def _folder_of(files: ModelFiles) -> Path:
    """Raises InputError for a model that is not on this machine."""
    if not files.local:
        raise InputError("model", files.name, "is no folder", remedy="download it, and name its folder")
    check_files(files.name, Path(files.source))
    return Path(files.source)


def _config(name: str, source: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((source / "config.json").read_text("utf-8"))
    if "quantization_config" in config:
        raise UnsupportedModelError(f"{name} is quantised", remedy="take the model that it was made of")
    if not all(isinstance(config.get(field), int) for field in ("intermediate_size", "num_hidden_layers")):
        kind = config.get("model_type")
        raise _not_gated(name, f"its configuration ({kind}) has no single intermediate_size and num_hidden_layers")
    return config


def _not_gated(name: str, reason: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{name} cannot be deepened: {reason}",
        remedy="take a model with a gate_proj, up_proj and down_proj in each layer, as Llama, Qwen2 and Gemma have",
    )


def _stored(source: Path, times: int) -> list[Stored]:
    """All tensors, in the order of the files, with the shapes that they get."""
    found = []
    single, index = source / _SINGLE, source / _INDEX
    if single.is_file() or not index.is_file():
        weights = [single] if single.is_file() else sorted(source.glob("*.safetensors"))
    else:
        weights = [source / name for name in sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))]
    for file in weights:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (no mapping)
                part = opened.get_slice(name)
                shape = tuple(part.get_shape())
                longer = tuple(size * many for size, many in zip(shape, copies(name, shape, times), strict=True))
                found.append(Stored(name, file, shape=longer, itemsize=_ITEMSIZE.get(part.get_dtype(), 1)))
    return found


def _check_gated(name: str, config: dict[str, Any], tensors: list[Stored], times: int) -> None:
    """That every layer has the three matrices, of the width that the configuration says, and nothing else beside them.

    Raises UnsupportedModelError."""
    layers, wide = config["num_hidden_layers"], config["intermediate_size"] * times
    mlps = [tensor for tensor in tensors if _MLP.search(tensor.name)]
    if other := next((tensor.name for tensor in mlps if not _GATED.search(tensor.name)), None):
        raise _not_gated(name, f"its MLPs have tensors of another kind: {other}")
    for ending in _WEIGHTS:
        found = [tensor for tensor in mlps if tensor.name.endswith(ending)]
        if len(found) != layers:
            raise _not_gated(name, f"{len(found)} of its {layers} layers have an mlp.{ending}")
        if wrong := next((tensor for tensor in found if tensor.shape["down" in ending] != wide), None):
            raise _not_gated(name, f"{wrong.name} has not the {config['intermediate_size']} neurons of its config.json")


def _make(folder: Path, needed: int) -> None:
    """Raises InputError for a folder that holds anything, or a disk without that much room."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError("folder", folder, "is there already, and not empty", remedy="name another, or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(folder).free) < needed:
        raise InputError(
            "folder",
            folder,
            f"has room for {free / 1e9:.1f} GB, and {needed / 1e9:.1f} GB are needed",
            remedy="name one on a larger disk, or give fewer --times",
        )


def _shards(tensors: list[Stored], most: int) -> list[list[Stored]]:
    """In order, in groups of at most so many bytes; a larger tensor alone."""
    shards: list[list[Stored]] = []
    size = most
    for tensor in tensors:
        if size + tensor.nbytes > most or not shards:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.nbytes
    return shards


def _read(stored: Stored, times: int) -> Tensor:
    with safe_open(stored.file, framework="pt") as opened:
        return widened(stored.name, opened.get_tensor(stored.name), times)


def main(
    model: Annotated[str, typer.Argument(help="An embedded name, a folder or a .gguf file")],
    folder: Annotated[Path, typer.Argument(help="Where the checkpoint goes")],
    times: Annotated[int, typer.Option(help="Copies of every neuron: a power of two")] = 16,
) -> None:
    """Write it."""
    began = time.perf_counter()
    done = deepen(model, folder, times)
    seconds = time.perf_counter() - began
    size = f"{done.parameters / 1e9:.2f} B parameters, {done.nbytes / 1e9:.1f} GB in {count_of(done.files, 'file')}"
    Console(stderr=True).print(f"{done.folder}: {size}, {seconds:.0f} s", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run_command(main)
