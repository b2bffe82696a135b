"""`dragoman plan --kubernetes`: what the replicas of a fleet file ask of Kubernetes, by model.

Weights are known from the headers of a model's files, keys and values from its configuration (docs/models.md). Sizes in
bytes.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from dragoman.ray_fleet.config import DrafterGroup, Target, read_fleet
from language_models.footprint import kv_bytes_per_token, weights_bytes
from language_models.weights import resolve
from speculation.plural import count_of
from transport.sizes import parse_size

_GIB: Final = 1 << 30
#: For Python and torch.
_PROGRAM: Final = _GIB
#: On a GPU: the CUDA context, graphs and what a step takes.
_GPU_PROGRAM: Final = 2 * _GIB
#: Of a drafter that looks up, which loads no torch.
_LOOKUP: Final = _GIB // 2
#: Beside the paged engine's, buffers double as they fill.
_DOUBLING: Final = 2
_DTYPES: Final = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Footprint:
    """Of one replica. None: its model is not on this machine. ``kv_cache``: of all its sessions. ``each``: of the
    weights what each of several GPUs has."""

    weights: int | None
    kv_cache: int | None
    each: int | None = None


def show_resources(path: Path, *, context: int, as_json: bool) -> None:
    """Print requests and limits of each group, as YAML to paste into a manifest. Raises InputError, UnknownModelError.

    ``context``: tokens of each session.
    """
    fleet = read_fleet(path)
    sizes = {group.name: footprint(group, context) for group in fleet.model_groups}
    found = {group.name: _resources(group, sizes[group.name]) for group in fleet.model_groups}
    if as_json:
        print(json.dumps(found))
        return
    for group in fleet.model_groups:
        print(f"# {_words(group, sizes[group.name], context)}")
        print(f"{group.name}:")
        for kind in ("requests", "limits"):
            written = ", ".join(f"{name}: {json.dumps(value)}" for name, value in found[group.name][kind].items())
            print(f"  {kind}: {{ {written} }}")


def footprint(group: Target | DrafterGroup, context: int) -> Footprint:
    """In the dtype that the group asks for; `auto` and int8 count as bfloat16, in which weights are read."""
    if _looks_up(group):
        return Footprint(0, 0)
    dtype = _DTYPES.get(group.dtype, torch.bfloat16)
    files = resolve(group.model)
    per_token = kv_bytes_per_token(files, dtype)
    kv_cache = None if per_token is None else per_token * context * group.max_sessions
    if isinstance(group, Target) and group.kv_memory is not None:
        kv_cache = parse_size("kv_memory", group.kv_memory)
    weights, ranks = weights_bytes(files, dtype), _ranks(group)
    return Footprint(weights, kv_cache, weights if ranks == 1 else weights_bytes(files, dtype, parts=ranks))


def _looks_up(group: Target | DrafterGroup) -> bool:
    return isinstance(group, DrafterGroup) and group.model == "lookup"


def _resources(group: Target | DrafterGroup, size: Footprint) -> dict[str, dict[str, Any]]:
    """As a container has them. Without a limit, as many threads would run as the node has cores."""
    asked: dict[str, Any] = {"cpu": _cpus(group)}
    if (memory := _memory(group, size)) is not None:
        asked["memory"] = _amount(memory)
    gpus = {"nvidia.com/gpu": _ranks(group)} if group.num_gpus else {}
    return {"requests": asked, "limits": {**asked, **gpus}}


def _ranks(group: Target | DrafterGroup) -> int:
    """GPUs that hold its model together."""
    return group.tensor_parallel if isinstance(group, Target) else 1


def _memory(group: Target | DrafterGroup, size: Footprint) -> int | None:
    """Of the machine, not of its GPU."""
    if _looks_up(group):
        return _LOOKUP
    if size.weights is None or (size.kv_cache is None and not group.num_gpus):
        return None
    if group.num_gpus:  # weights come through it
        return size.weights + 2 * _PROGRAM * _ranks(group)
    kept = parse_size("prefix_memory", group.prefix_memory or "1B") if isinstance(group, DrafterGroup) else 0
    return size.weights + _DOUBLING * (size.kv_cache or 0) + kept + _PROGRAM


def _cpus(group: Target | DrafterGroup) -> str:
    cores = max(group.num_cpus, group.threads or 0, 0.1)
    return f"{cores:g}" if cores == int(cores) else f"{math.ceil(cores * 1000)}m"


def _amount(size: int) -> str:
    return f"{math.ceil(size / _GIB)}Gi" if size >= _GIB else f"{math.ceil(size / 2**20)}Mi"


def _words(group: Target | DrafterGroup, size: Footprint, context: int) -> str:
    replicas = f"{group.replicas} of {group.model}"
    if _looks_up(group):
        return f"{replicas}: no model"
    if size.weights is None:
        return f"{replicas}: not on this machine, so its memory is not known; `hf download {group.model}` first"
    cache = f"{_gib(size.kv_cache)} for {count_of(group.max_sessions, 'session')} of {context:,} tokens"
    if isinstance(group, Target) and group.kv_memory is not None:
        cache = f"{_gib(size.kv_cache)} of KV memory"
    where = ""
    if group.num_gpus and size.kv_cache is not None:
        where = f"; {_gpus(group, size.each or size.weights, size.kv_cache)}"
    return f"{replicas}: weights {_gib(size.weights)}, {cache}{where}"


def _gpus(group: Target | DrafterGroup, weights: int, kv_cache: int) -> str:
    ranks = _ranks(group)
    bounded = isinstance(group, Target) and group.kv_memory is not None  # which is said of each GPU
    needed = _gib(weights + (kv_cache if bounded else kv_cache // ranks) + _GPU_PROGRAM)
    return f"a GPU with {needed}" if ranks == 1 else f"{ranks} GPUs with {needed} each"


def _gib(size: int | None) -> str:
    return "an unknown amount" if size is None else f"{size / _GIB:.1f} GiB"
