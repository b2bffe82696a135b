"""What a model's configuration says, without its weights."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import AutoConfig

from language_models.custom_code import custom_code_error
from language_models.kv_cache import layer_windows
from language_models.positions import context_length, context_remark
from language_models.quiet import quiet
from language_models.weights import ModelFiles
from speculation.errors import ModelError, UnsupportedModelError


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """``cannot_roll_back``: the kinds of layers whose state cannot be undone, "" if there are none.

    ``context_remark``: what is to be known about the context, "" if there is nothing.
    """

    model_type: str
    vocab_size: int
    context_length: int
    cannot_roll_back: str = ""
    context_remark: str = ""

    @classmethod
    def read(cls, files: ModelFiles) -> ModelConfig:
        """Raises ModelError."""
        try:
            with quiet():
                config = AutoConfig.from_pretrained(
                    files.source, local_files_only=files.local, trust_remote_code=files.trust_remote_code
                )
        except (OSError, ValueError) as error:
            if refused := custom_code_error(files, error):
                raise refused from error
            reason = (str(error).strip().splitlines() or ["unreadable"])[0]
            raise ModelError(f"the configuration of {files.name} cannot be loaded: {reason}") from error
        text = config.get_text_config(decoder=True)
        try:
            layer_windows(config)
            problem = ""
        except UnsupportedModelError:
            problem = ", ".join(sorted(set(text.layer_types) - {"full_attention", "sliding_attention"}))
        return cls(config.model_type, text.vocab_size, context_length(config), problem, context_remark(config))
