"""A drafter by its name: a model of any kind, or ``lookup``, which needs none."""

from __future__ import annotations

import torch

from drafter_service.draft_source import Drafter
from drafter_service.lookup_drafter import LookupDrafter
from drafter_service.model_drafter import ModelDrafter
from language_models.causal_lm import CausalLM
from language_models.weights import Progress, home

LOOKUP_MODEL = "lookup"


def load_drafter(
    model: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> Drafter:
    """dtype ``auto`` on a CPU is int8: twice as fast, and a drafter need not be exact.

    Raises InputError, ModelError.
    """
    if model == LOOKUP_MODEL:
        return LookupDrafter()
    if dtype == "auto" and device in ("auto", "cpu"):
        on_cpu = device == "cpu" or not torch.cuda.is_available()
        dtype = "int8" if on_cpu and "fbgemm" in torch.backends.quantized.supported_engines else "auto"
    loaded = CausalLM.load(
        model, device=device, dtype=dtype, threads=threads, trust_remote_code=trust_remote_code, progress=progress
    )
    return ModelDrafter(loaded, vocabularies=home() / "vocabularies")
