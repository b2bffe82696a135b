"""What a model's configuration says, without its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from transformers import AutoConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from language_models.custom_code import custom_code_error
from language_models.kv_cache import layer_windows
from language_models.positions import context_length, context_remark
from language_models.quiet import quiet
from language_models.weights import ModelFiles
from speculation.errors import ModelError, UnsupportedModelError

#: Kinds whose tokens see those behind them unless the configuration has ``is_decoder``. Others that have the same
#: setting are decoders whatever it says, or set it themselves.
_ENCODERS: Final = frozenset(
    {
        "bert",
        "bert-generation",
        "big_bird",
        "camembert",
        "data2vec-text",
        "electra",
        "ernie",
        "megatron-bert",
        "rembert",
    }
    | {"roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm-roberta", "xlm-roberta-xl", "xmod"}
)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """``cannot_roll_back``: the kinds of layers whose state cannot be undone, "" if there are none.

    ``context_remark``: what is to be known about the context, "" if there is nothing. ``cannot_write``: what kind of a
    model it is that writes no text, "" if it is none.
    """

    model_type: str
    vocab_size: int
    context_length: int
    cannot_roll_back: str = ""
    context_remark: str = ""
    cannot_write: str = ""

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
        return cls(
            model_type=config.model_type,
            vocab_size=text.vocab_size,
            context_length=context_length(config),
            cannot_roll_back=problem,
            context_remark=context_remark(config),
            cannot_write=_cannot_write(config),
        )


def _cannot_write(config: PretrainedConfig) -> str:
    kinds = {config.model_type, config.get_text_config(decoder=True).model_type}
    if config.model_type in _ENCODERS and not getattr(config, "is_decoder", True):
        return f"an encoder, whose tokens see those behind them ({config.model_type} without is_decoder)"
    if kinds.isdisjoint(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        brought = getattr(config, "auto_map", None) or {}
        if "AutoModelForCausalLM" not in brought:
            return f"of a kind that transformers has no causal language model of ({config.model_type})"
    return ""
