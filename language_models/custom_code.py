"""Models that bring Python code of their own: run only if the user says so, and never asked about on a terminal."""

from __future__ import annotations

from language_models.weights import ModelFiles
from speculation.errors import UnsupportedModelError

OPTION = "--trust-remote-code"


def custom_code_error(files: ModelFiles, error: Exception) -> UnsupportedModelError | None:
    """What to raise if transformers' ``error`` is that the model's own code is not trusted."""
    if files.trust_remote_code or "trust_remote_code" not in str(error):
        return None
    return UnsupportedModelError(
        f"{files.name} brings code of its own, which is not run unless you trust it",
        remedy=f"read the code, then give {OPTION}; or use a model of a kind that transformers knows",
    )
