"""A drafter by its name: a model of any kind, or ``lookup``, which needs none."""

from __future__ import annotations

import logging

import torch

from drafter_service.draft_model import DraftModel
from drafter_service.draft_source import Drafter
from drafter_service.lookup_drafter import LookupDrafter
from drafter_service.model_drafter import ModelDrafter
from drafter_service.settings import DrafterSettings
from language_models.causal_lm import CausalLM
from language_models.weights import Progress, home
from speculation.errors import InputError, UnsupportedModelError

log = logging.getLogger(__name__)

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
    if engine == "transformers":
        return model
    if model.device.type != "cuda" or model.dtype_name not in ("bfloat16", "float16"):
        reason = f"it needs a GPU and 16-bit weights, and this is {model.dtype_name} on the {model.device.type}"
    else:
        from engine.paged_model import PagedModel  # with it comes triton

        try:
            return PagedModel(model, max_sessions=max_sessions)
        except (UnsupportedModelError, ImportError) as error:
            reason = str(error)
            log.warning("%s runs in the slower engine of transformers: %s", model.name, reason)
    if engine == "paged":
        raise InputError("engine", engine, f"cannot run {model.name}: {reason}", remedy="--engine auto")
    return model
