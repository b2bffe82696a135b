"""Whether a loaded model, target or drafter, runs in the paged engine: on a GPU, in 16 bits, with a kernel for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch

from speculation.errors import InputError, ModelTooLargeError, UnsupportedModelError

log = logging.getLogger(__name__)

_T = TypeVar("_T")


class Placed(Protocol):
    """What the choice depends on."""

    name: str
    device: torch.device
    dtype_name: str


def why_not_paged(model: Placed) -> str:
    """What device or weights lack for it; empty if it may be tried."""
    if model.device.type != "cuda":
        return f"it needs a GPU, and the model is on the {model.device.type}"
    if model.dtype_name not in ("bfloat16", "float16"):
        return f"it needs 16-bit weights, and these are {model.dtype_name}"
    return ""


def no_memory(model: Placed) -> ModelTooLargeError:
    """Of a model whose weights have some."""
    return ModelTooLargeError(
        f"{model.name} is loaded, but its keys, values and passes find no memory on {model.device}",
        remedy="stop what else holds memory there, or give a verifier's keys and values less: --kv-memory 8GiB",
    )


def in_paged_engine(model: Placed, kind: str, make: Callable[[], _T]) -> _T | None:
    """What ``make`` makes of the model; None: it is to run in transformers. ``kind``: auto, paged or transformers.

    Raises InputError where the paged engine is asked for and cannot be had, ModelTooLargeError if the device has no
    memory for it: weights that its engine has begun to lay out anew run in no other.
    """
    if kind == "transformers":
        return None
    reason = why_not_paged(model)
    if not reason:
        try:
            return make()
        except (UnsupportedModelError, ImportError) as error:
            reason = str(error)
            log.warning("%s runs in the slower engine of transformers: %s", model.name, reason)
        except torch.OutOfMemoryError as error:
            raise no_memory(model) from error
    if kind == "paged":
        raise InputError("engine", str(kind), f"cannot run {model.name}: {reason}", remedy="--engine auto")
    return None
