"""A model out of its files by transformers, whole or not at all.

transformers fills tensors that a checkpoint lacks with random numbers, and says so in a note among others. Here that
is an error, before anyone reads what such a model writes.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, PreTrainedModel

from language_models.custom_code import custom_code_error
from language_models.quiet import quiet
from language_models.shards import Shards
from language_models.weights import ModelFiles, Progress
from speculation.errors import DragomanError, ModelError, WeightsError

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
#: Python's own format of objects: reading one may run whatever its author liked.
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
#: What Git leaves in the place of a large file that it did not download.
_POINTER = b"version https://git-lfs"
_AGAIN = "download it again"
_SHOWN = 3


def load_pretrained(
    files: ModelFiles,
    *,
    dtype: torch.dtype,
    device: torch.device,
    attention: str | None,
    progress: Progress | None = None,
    shards: Shards | None = None,
) -> PreTrainedModel:
    """The model of ``files`` in ``dtype`` on ``device``. ``attention``: transformers' name of the implementation,
    None for the best one that the model has. ``shards``: this process keeps a part of it.

    Raises WeightsError if tensors are missing or of other shapes than the configuration says, or if there are only
    pickled ones; UnsupportedModelError if it needs code of its own that is not trusted, ModelError.
    """
    if files.local:
        check_files(files.name, Path(files.source))
    if progress:
        progress("loading weights", 0, 1)
    try:
        with contextlib.nullcontext() if shards is None else shards.turn():
            model = _whole(files, dtype, attention)
            if shards is not None:
                shards.keep_part(model, files.name)
            model = model.to(device).eval()
    except DragomanError:
        raise
    except torch.OutOfMemoryError as error:
        raise ModelError(f"{files.name} does not fit the memory of {device}", remedy="use a smaller dtype") from error
    except Exception as error:  # the readers of config, weights and quantisers raise what they like
        raise _in_our_words(files, error) from error
    if progress:
        progress("loading weights", 1, 1)
    return model


def _whole(files: ModelFiles, dtype: torch.dtype, attention: str | None) -> PreTrainedModel:
    """In the host's memory. Raises what the readers raise, and WeightsError."""
    with quiet():
        model, loaded = AutoModelForCausalLM.from_pretrained(
            files.source,
            dtype=dtype,
            attn_implementation=attention,
            local_files_only=files.local,
            trust_remote_code=files.trust_remote_code,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # to name them
            output_loading_info=True,
        )
    check_complete(files.name, model, loaded)
    return model


def _in_our_words(files: ModelFiles, error: Exception) -> DragomanError:
    """What a reader of config, weights or quantisers raised."""
    if refused := custom_code_error(files, error):
        return refused
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if _SINGLE in reason and not files.local:  # which it looked for, and what it might read instead is refused
        return _no_safetensors(files.name)
    if "conversion of the weights" in reason:  # of experts into one tensor, say; which ones stands in a note
        return WeightsError(
            f"{files.name}: some of its tensors cannot be put together: there are too few, or of other shapes than its "
            "configuration says",
            remedy=_AGAIN,
        )
    return ModelError(f"{files.name} cannot be loaded: {reason}")


def check_complete(
    name: str, model: PreTrainedModel, loaded: Mapping[str, Any], *, remedy: Callable[[], str] = lambda: _AGAIN
) -> None:
    """``loaded``: transformers' account of the loading. ``remedy``: asked only if there is a problem, as it may read
    the files once more. Raises WeightsError if not every tensor came from a file."""
    total = len({tensor.data_ptr() for tensor in model.state_dict().values()})  # tied ones count once
    missing = sorted(loaded["missing_keys"])
    if missing:
        raise WeightsError(
            f"{name} is incomplete: its files lack {len(missing)} of {total} tensors: {_first(missing)}",
            remedy=remedy(),
        )
    shapes = sorted(
        f"{key} is {list(found)} instead of {list(expected)}" for key, found, expected in loaded["mismatched_keys"]
    )
    if shapes:
        raise WeightsError(
            f"{name}: {len(shapes)} of {total} tensors have other shapes than its configuration says: {_first(shapes)}",
            remedy="take the config.json that belongs to the weights",
        )
    if problems := [str(problem) for problem in loaded.get("error_msgs") or ()]:
        raise WeightsError(f"{name}: its weights cannot be read: {_first(problems)}", remedy=remedy())


def check_files(name: str, folder: Path) -> None:
    """That the files of weights in ``folder`` are there in full, by their names, sizes and headers.

    Raises WeightsError naming the first file that is not.
    """
    weights, index = sorted(folder.glob("*.safetensors")), folder / _INDEX
    if index.is_file() and not (folder / _SINGLE).is_file():
        shards = _shards(index)
        if missing := [shard for shard in shards if not (folder / shard).is_file()]:
            raise WeightsError(
                f"{name} is incomplete: {len(missing)} of its {len(shards)} files of weights are missing: "
                f"{_first(missing)}",
                remedy=f"download what {index} names",
            )
    elif not weights:
        pickled = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
        if pickled:
            raise _no_safetensors(name, f" ({_first(pickled)})")
        raise WeightsError(f"{name}: there are no weights (*.safetensors) in {folder}", remedy=_AGAIN)
    for file in weights:
        with file.open("rb") as opened:
            if opened.read(len(_POINTER)) == _POINTER:
                raise WeightsError(f"{file} is a pointer of Git LFS, not the file", remedy="run `git lfs pull` there")
        try:
            with safe_open(file, framework="pt"):
                pass  # reads the header, and compares it with the size of the file
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{file} is cut short or damaged: {error}", remedy=_AGAIN) from error


def _no_safetensors(name: str, found: str = "") -> WeightsError:
    return WeightsError(
        f"{name} has no weights in safetensors; pickled ones{found} are not read, as they may run code",
        remedy="take a version with *.safetensors, or convert it: save_pretrained() of transformers writes them",
    )


def _shards(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index} cannot be read: {error}", remedy=_AGAIN) from error


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
