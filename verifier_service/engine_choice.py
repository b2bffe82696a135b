"""Which engine a loaded model runs in: on a GPU in 16 bits the paged one, which has a step's rows in one CUDA graph."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import StrEnum

from engine.divided_target import DividedTarget
from engine.paged_choice import in_paged_engine, why_not_paged
from engine.paged_engine import PagedEngine
from language_models.causal_lm import CausalLM, Progress
from language_models.placement import device_of, dtype_of
from language_models.tokenizer_check import Role, check_tokenizer
from speculation.errors import InputError
from transport.sizes import parse_size
from verifier_service.engine import Engine
from verifier_service.settings import VerifierSettings
from verifier_service.transformers_engine import TransformersEngine


class EngineKind(StrEnum):
    """``auto``: paged where it works, else transformers."""

    AUTO = "auto"
    PAGED = "paged"
    TRANSFORMERS = "transformers"


def load_engine(
    settings: VerifierSettings,
    watching: Callable[[], AbstractContextManager[Progress | None]] = contextlib.nullcontext,
) -> Engine:
    """The model of the settings, in the engine that they ask for. ``watching``: a context in which who watches is told
    how far the loading is. Raises InputError, ModelError."""
    with watching() as progress:
        if settings.tensor_parallel > 1:
            return _divided_engine(settings, progress)
        model = CausalLM.load(
            settings.model,
            device=settings.device,
            dtype=settings.dtype,
            threads=settings.threads,
            trust_remote_code=settings.trust_remote_code,
            progress=progress,
        )
    return engine_of(model, settings)


def _divided_engine(settings: VerifierSettings, progress: Progress | None) -> Engine:
    """On several GPUs. Raises InputError where they cannot be used, ModelError."""
    ranks, device = settings.tensor_parallel, device_of(settings.device)
    if device.type != "cuda":
        problem = f"divides a model among GPUs, and the device is {device}"
        raise InputError("tensor-parallel", ranks, problem, remedy="leave it out, or give --device cuda")
    if settings.engine == "transformers" or dtype_of(settings.dtype, device)[0].itemsize != 2:
        problem = "needs the paged engine, which has 16-bit weights"
        raise InputError("tensor-parallel", ranks, problem, remedy="--engine auto --dtype bfloat16")
    divided = DividedTarget(
        settings.model,
        device=str(device),
        dtype=settings.dtype,
        threads=settings.threads,
        trust_remote_code=settings.trust_remote_code,
        kv_bytes=_kv_bytes(settings),
        max_sessions=settings.max_sessions,
        prefix_caching=settings.prefix_caching,
        exact=settings.exact,
    )
    return divided.lead(ranks, progress=progress)


def _kv_bytes(settings: VerifierSettings) -> int | None:
    return None if settings.kv_memory is None else parse_size("kv-memory", settings.kv_memory)


def engine_of(model: CausalLM, settings: VerifierSettings) -> Engine:
    """The engine that the settings ask for. Raises what ``engine_for`` raises."""
    return engine_for(
        model,
        EngineKind(settings.engine),
        kv_bytes=_kv_bytes(settings),
        max_sessions=settings.max_sessions,
        prefix_caching=settings.prefix_caching,
        exact=settings.exact,
    )


def engine_for(
    model: CausalLM,
    kind: EngineKind = EngineKind.AUTO,
    *,
    kv_bytes: int | None = None,
    max_sessions: int = 64,
    prefix_caching: bool = True,
    exact: bool = True,
) -> Engine:
    """``kv_bytes``: memory for the paged engine's KV cache; None: what ``max_sessions`` could need, if it is free.

    Raises InputError where the paged engine is asked for and cannot be had; ModelError where it computes anything else
    than transformers does.
    """
    if kind is not EngineKind.TRANSFORMERS and not why_not_paged(model):
        check_tokenizer(model.tokenizer, Role.TARGET, model.name)
    paged = in_paged_engine(
        model,
        kind,
        lambda: PagedEngine(
            model, kv_bytes=kv_bytes, max_sessions=max_sessions, prefix_caching=prefix_caching, exact=exact
        ),
    )
    return TransformersEngine(model) if paged is None else paged
