"""A drafter by its name: a model of any kind, or ``lookup``, which needs none and brings no torch along."""

from __future__ import annotations

from drafter_service.draft_source import Drafter
from drafter_service.lookup_drafter import LookupDrafter
from drafter_service.settings import DrafterSettings
from language_models.weights import Progress, check_name
from transport.sizes import parse_size

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
    prefix_memory: str | None = None,
    progress: Progress | None = None,
) -> Drafter:
    """dtype ``auto`` on a CPU is int8: twice as fast, and a drafter need not be exact.

    ``engine``: paged, transformers, or auto, which is paged on a GPU in 16 bits where it can be had.
    ``max_sessions``: texts that the paged engine has memory for. ``prefix_memory``: see ``DrafterSettings``; None: 0.
    Raises InputError, ModelError.
    """
    if model == LOOKUP_MODEL:
        return LookupDrafter()
    check_name(model)  # a name that is none is told before torch is loaded
    from drafter_service.model_loading import load_model_drafter

    return load_model_drafter(
        model,
        device=device,
        dtype=dtype,
        threads=threads,
        trust_remote_code=trust_remote_code,
        engine=engine,
        max_sessions=max_sessions,
        prefix_bytes=parse_size("prefix_memory", prefix_memory) if prefix_memory is not None else 0,
        progress=progress,
    )


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
        prefix_memory=settings.prefix_memory,
        progress=progress,
    )
