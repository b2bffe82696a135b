"""A drafter by its name: a model of any kind, or ``lookup``, which needs none."""

from __future__ import annotations

import torch

from drafter_service.draft_model import DraftModel
from drafter_service.draft_source import Drafter
from drafter_service.lookup_drafter import LookupDrafter
from drafter_service.model_drafter import ModelDrafter
from drafter_service.settings import DrafterSettings
from engine.paged_choice import in_paged_engine
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
    engine: str = "auto",
    max_sessions: int = 4,
    progress: Progress | None = None,
) -> Drafter:
    """dtype ``auto`` on a CPU is int8: twice as fast, and a drafter need not be exact.

    ``engine``: paged, transformers, or auto, which is paged on a GPU in 16 bits where it can be had.
    ``max_sessions``: texts that the paged engine has memory for.
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
    return ModelDrafter(_in_engine(loaded, engine, max_sessions), vocabularies=home() / "vocabularies")


def drafter_of(settings: DrafterSettings, *, progress: Progress | None = None) -> Drafter:
    """The one that the settings ask for. Raises as ``load_drafter``."""
    return load_drafter(
        settings.model,
        device=settings.device,
        dtype=settings.dtype,
        threads=settings.threads,
        trust_remote_code=settings.trust_remote_code,
        engine=settings.engine,
        max_sessions=settings.max_sessions,
        progress=progress,
    )


def _in_engine(model: CausalLM, engine: str, max_sessions: int) -> DraftModel:
    """Raises InputError where the paged engine is asked for and cannot be had."""

    def paged() -> DraftModel:
        from engine.paged_model import PagedModel  # with it comes triton

        return PagedModel(model, max_sessions=max_sessions)

    return in_paged_engine(model, engine, paged) or model
