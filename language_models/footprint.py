"""How much memory a model's weights take, known from the headers of its files, before anything is loaded."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import huggingface_hub
import psutil
import torch

from language_models.weights import ModelFiles
from speculation.errors import ModelTooLargeError

#: Bytes of an element that is loaded as it stands: what is no floating-point number.
_INTEGERS = {"I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1}
#: Tensors of which each of several GPUs holds a part; embeddings, norms and the output projection are whole on each.
_DIVIDED = re.compile(r"\.(q|k|v|o|gate|up|down)_proj\.")
#: Longer headers are none.
_HEADER_BYTES = 100 << 20


def check_fits(files: ModelFiles, dtype: torch.dtype, device: torch.device, *, parts: int = 1) -> None:
    """Raises ModelTooLargeError if the weights in ``dtype``, or one of so many parts of them, are more than the memory
    that ``device`` has free.

    What cannot be known (weights not downloaded yet, a system that does not say what is free) is not held against it.
    """
    needed = weights_bytes(files, dtype, parts=parts)
    free = free_bytes(device)
    if needed is not None and free is not None and needed > free:
        each = "" if parts == 1 else f" on each of {parts} GPUs"
        raise ModelTooLargeError(
            f"{files.name} does not fit: its weights in {str(dtype).removeprefix('torch.')} take {_gib(needed)}{each}, "
            f"and {_gib(free)} are free on {device}",
            remedy="use a smaller dtype or model, or a machine with more memory",
        )


def weights_bytes(files: ModelFiles, dtype: torch.dtype, *, parts: int = 1) -> int | None:
    """Of the weights loaded in ``dtype``, without any KV cache; None if there are no safetensors here to read.

    ``parts``: of one of so many devices that hold the model together (``engine/sharding.py``).
    """
    shards = sorted(model_folder(files).glob("*.safetensors"))
    return sum(_shard_bytes(shard, dtype, parts) for shard in shards) if shards else None


def kv_bytes_per_token(files: ModelFiles, dtype: torch.dtype) -> int | None:
    """Of keys and values of one token in all layers; None if its configuration is not here, or does not say."""
    try:
        written = json.loads((model_folder(files) / "config.json").read_text("utf-8"))
        text = written.get("text_config", written)
        heads = text["num_attention_heads"]
        size = text.get("head_dim") or text["hidden_size"] // heads
        return int(2 * text["num_hidden_layers"] * (text.get("num_key_value_heads") or heads) * size * dtype.itemsize)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        return None


def free_bytes(device: torch.device) -> int | None:
    """Memory that a process may still take there; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    free, room = psutil.virtual_memory().available, _container_room()
    return free if room is None else min(free, room)


def model_folder(files: ModelFiles) -> Path:
    """Where the files lie on this machine; a folder that is not there if they were not downloaded yet."""
    if files.local:
        return Path(files.source)
    cached = huggingface_hub.try_to_load_from_cache(files.source, "config.json")
    return Path(cached).parent if isinstance(cached, str) else Path("/nonexistent")


def _shard_bytes(shard: Path, dtype: torch.dtype, parts: int) -> int:
    """Sizes by the header (8 bytes of length, then JSON); a file that has none is as large as it is."""
    try:
        with shard.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, _HEADER_BYTES)))
        header.pop("__metadata__", None)
        return sum(
            math.prod(tensor["shape"])
            * _INTEGERS.get(tensor["dtype"], dtype.itemsize)
            // (parts if _DIVIDED.search(name) else 1)
            for name, tensor in header.items()
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return shard.stat().st_size  # the loader will say what is wrong with it


def _container_room() -> int | None:
    """What the limit of a container leaves; its page cache would be given up, so it does not count as taken."""
    group = Path("/sys/fs/cgroup")
    try:
        limit, taken = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else int(limit) - taken + int(statistics.get("inactive_file", 0))


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 // 10 else f"{size / 2**20:.1f} MiB"
