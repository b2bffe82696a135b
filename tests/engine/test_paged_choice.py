"""Which engine a model gets, and what is said where the device has no memory for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Never

import pytest
import torch

from engine.paged_choice import in_paged_engine
from speculation.errors import InputError, ModelTooLargeError, UnsupportedModelError


@dataclass
class OnGpu:
    """A model in 16 bits, as far as the choice looks at it."""

    name: str = "m"
    device: torch.device = field(default_factory=lambda: torch.device("cuda:1"))
    dtype_name: str = "bfloat16"


def unsupported() -> Never:
    raise UnsupportedModelError("m has no linear output projection")


def without_memory() -> Never:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 180.00 MiB.")


@pytest.mark.parametrize("kind", ["auto", "paged"])
def test_a_device_without_memory_is_an_error_with_a_remedy(kind: str):
    """And not transformers' engine: the weights were fused, and the module's attention is the paged one, by then."""
    with pytest.raises(ModelTooLargeError, match="no memory on cuda:1") as raised:
        in_paged_engine(OnGpu(), kind, without_memory)
    assert "--kv-memory" in str(raised.value.remedy) and raised.value.exit_code == 3


def test_an_engine_that_cannot_run_a_model_is_left_only_where_it_was_not_asked_for():
    assert in_paged_engine(OnGpu(), "auto", unsupported) is None
    with pytest.raises(InputError, match="no linear output projection"):
        in_paged_engine(OnGpu(), "paged", unsupported)
    assert in_paged_engine(OnGpu(), "transformers", without_memory) is None
    assert in_paged_engine(OnGpu(), "paged", lambda: "made") == "made"


@pytest.mark.parametrize(
    ("model", "reason"),
    [(OnGpu(device=torch.device("cpu")), "needs a GPU"), (OnGpu(dtype_name="float32"), "needs 16-bit weights")],
)
def test_what_it_needs_is_named(model: OnGpu, reason: str):
    assert in_paged_engine(model, "auto", without_memory) is None
    with pytest.raises(InputError, match=reason):
        in_paged_engine(model, "paged", without_memory)
