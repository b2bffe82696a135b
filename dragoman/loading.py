"""Models for the commands: loaded with a progress bar, licence notices shown first."""

from __future__ import annotations

from drafter_service.draft_source import Drafter
from drafter_service.lookup_drafter import LookupDrafter
from drafter_service.model_drafter import ModelDrafter
from dragoman.terminal import err, progress_bar
from language_models.causal_lm import CausalLM
from language_models.embedded import EMBEDDED
from language_models.weights import home

LOOKUP = "lookup"


def show_licence(model: str) -> None:
    """Some weights come with terms that must be said before use."""
    notice = EMBEDDED[model].licence_notice if model in EMBEDDED else ""
    if notice:
        err.print(f"{model}: {notice}", style="yellow", highlight=False, soft_wrap=True)


def load_model(model: str, *, device: str, dtype: str, threads: int | None) -> CausalLM:
    """Raises InputError, ModelError."""
    show_licence(model)
    with progress_bar() as progress:
        return CausalLM.load(model, device=device, dtype=dtype, threads=threads, progress=progress)


def load_drafter(model: str, *, device: str, dtype: str, threads: int | None) -> Drafter:
    """A model, or ``lookup``. dtype ``auto`` on a CPU is int8: twice as fast, and a drafter need not be exact."""
    if model == LOOKUP:
        return LookupDrafter()
    if dtype == "auto" and device in ("auto", "cpu"):
        import torch

        on_cpu = device == "cpu" or not torch.cuda.is_available()
        dtype = "int8" if on_cpu and "fbgemm" in torch.backends.quantized.supported_engines else "auto"
    loaded = load_model(model, device=device, dtype=dtype, threads=threads)
    return ModelDrafter(loaded, vocabularies=home() / "vocabularies")
