"""A model that drafts, loaded and in an engine."""

from __future__ import annotations

import torch

from drafter_service.draft_model import DraftModel
from drafter_service.draft_source import Drafter
from drafter_service.model_drafter import ModelDrafter
from engine.paged_choice import in_paged_engine
from language_models.causal_lm import CausalLM
from language_models.weights import Progress, home


def load_model_drafter(
    model: str,
    *,
    device: str,
    dtype: str,
    threads: int | None,
    trust_remote_code: bool,
    engine: str,
    max_sessions: int,
    prefix_bytes: int,
    progress: Progress | None,
) -> Drafter:
    """As ``drafter_service.loading.load_drafter``, which says what the arguments mean."""
    if dtype == "auto" and device in ("auto", "cpu"):
        on_cpu = device == "cpu" or not torch.cuda.is_available()
        dtype = "int8" if on_cpu and "fbgemm" in torch.backends.quantized.supported_engines else "auto"
    loaded = CausalLM.load(
        model, device=device, dtype=dtype, threads=threads, trust_remote_code=trust_remote_code, progress=progress
    )
    return ModelDrafter(
        _in_engine(loaded, engine, max_sessions),
        vocabularies=home() / "vocabularies",
        prefix_bytes=prefix_bytes if loaded.device.type == "cpu" else 0,
    )


def _in_engine(model: CausalLM, engine: str, max_sessions: int) -> DraftModel:
    """Raises InputError where the paged engine is asked for and cannot be had."""

    def paged() -> DraftModel:
        from engine.paged_model import PagedModel  # with it comes triton

        return PagedModel(model, max_sessions=max_sessions)

    return in_paged_engine(model, engine, paged) or model
