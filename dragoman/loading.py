"""Models for the commands: loaded with a progress bar, licence notices shown first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drafter_service import loading
from drafter_service.draft_source import Drafter
from drafter_service.settings import DrafterSettings
from dragoman.terminal import err, progress_bar
from language_models.embedded import EMBEDDED

if TYPE_CHECKING:
    from verifier_service.engine import Engine
    from verifier_service.settings import VerifierSettings


def show_licence(model: str) -> None:
    """Some weights come with terms that must be said before use."""
    notice = EMBEDDED[model].licence_notice if model in EMBEDDED else ""
    if notice:
        err.print(f"{model}: {notice}", style="yellow", highlight=False, soft_wrap=True)


def load_target(settings: VerifierSettings) -> Engine:
    """``settings.model``: a name that was checked (``language_models.weights.check_name``) before torch is loaded here.

    Raises InputError, ModelError.
    """
    show_licence(settings.model)
    from verifier_service.engine_choice import load_engine

    return load_engine(settings, progress_bar)


def load_drafter(settings: DrafterSettings) -> Drafter:
    """A model, or ``lookup``. Raises InputError, ModelError."""
    show_licence(settings.model)
    with progress_bar() as progress:
        return loading.drafter_of(settings, progress=progress)
