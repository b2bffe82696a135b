"""Which engine a loaded model runs in: on a GPU in 16 bits the paged one, which has a step's rows in one CUDA graph."""

from __future__ import annotations

import logging
from enum import StrEnum

from engine.paged_engine import PagedEngine
from language_models.causal_lm import CausalLM
from language_models.tokenizer_check import Role, check_tokenizer
from speculation.errors import InputError, UnsupportedModelError
from transport.sizes import parse_size
from verifier_service.engine import Engine
from verifier_service.settings import VerifierSettings
from verifier_service.transformers_engine import TransformersEngine

log = logging.getLogger(__name__)


class EngineKind(StrEnum):
    """``auto``: paged where it works, else transformers."""

    AUTO = "auto"
    PAGED = "paged"
    TRANSFORMERS = "transformers"


def engine_of(model: CausalLM, settings: VerifierSettings) -> Engine:
    """The engine that the settings ask for. Raises what ``engine_for`` raises."""
    kv_bytes = None if settings.kv_memory is None else parse_size("kv-memory", settings.kv_memory)
    return engine_for(
        model,
        EngineKind(settings.engine),
        kv_bytes=kv_bytes,
        max_sessions=settings.max_sessions,
        prefix_caching=settings.prefix_caching,
    )


def engine_for(
    model: CausalLM,
    kind: EngineKind = EngineKind.AUTO,
    *,
    kv_bytes: int | None = None,
    max_sessions: int = 64,
    prefix_caching: bool = True,
) -> Engine:
    """``kv_bytes``: memory for the paged engine's KV cache; None: what ``max_sessions`` could need, if it is free.

    Raises InputError where the paged engine is asked for and cannot be had; ModelError where it computes anything else
    than transformers does.
    """
    if kind is EngineKind.TRANSFORMERS:
        return TransformersEngine(model)
    reason = ""
    if model.device.type != "cuda":
        reason = f"it needs a GPU, and the model is on the {model.device.type}"
    elif model.dtype_name not in ("bfloat16", "float16"):
        reason = f"it needs 16-bit weights, and these are {model.dtype_name}"
    else:
        check_tokenizer(model.tokenizer, Role.TARGET, model.name)
        try:
            return PagedEngine(model, kv_bytes=kv_bytes, max_sessions=max_sessions, prefix_caching=prefix_caching)
        except (UnsupportedModelError, ImportError) as error:
            reason = str(error)
            log.warning("%s runs in the slower engine of transformers: %s", model.name, reason)
    if kind is EngineKind.PAGED:
        raise InputError("engine", str(kind), f"cannot run {model.name}: {reason}", remedy="--engine auto")
    return TransformersEngine(model)
