"""What a model's configuration says, without its weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from language_models.custom_code import custom_code_error
from language_models.kv_cache import layer_windows
from language_models.positions import context_length, context_remark, takes_positions
from language_models.quiet import quiet
from language_models.self_test_places import TEXT
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


def read_config(files: ModelFiles) -> PretrainedConfig:
    """As transformers has it. Raises ModelError."""
    try:
        with quiet():
            return AutoConfig.from_pretrained(
                files.source, local_files_only=files.local, trust_remote_code=files.trust_remote_code
            )
    except (OSError, ValueError) as error:
        if refused := custom_code_error(files, error):
            raise refused from error
        reason = (str(error).strip().splitlines() or ["unreadable"])[0]
        raise ModelError(f"the configuration of {files.name} cannot be loaded: {reason}") from error


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """``cannot_roll_back``: the kinds of layers whose state cannot be undone, "" if there are none.

    ``context_remark``: what is to be known about the context, "" if there is nothing. ``cannot_write``: what kind of a
    model it is that writes no text, "" if it is none. ``cannot_pass``: why it fails the self-test whatever its weights
    are, "" if no reason is known.
    """

    model_type: str
    vocab_size: int
    context_length: int
    cannot_roll_back: str = ""
    context_remark: str = ""
    cannot_write: str = ""
    cannot_pass: str = ""

    @classmethod
    def read(cls, files: ModelFiles) -> ModelConfig:
        """Raises ModelError."""
        config = read_config(files)
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
            cannot_pass=_cannot_pass(config, trust_remote_code=files.trust_remote_code),
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


def _cannot_pass(config: PretrainedConfig, *, trust_remote_code: bool) -> str:
    text = config.get_text_config(decoder=True)
    sees_later = getattr(text, "use_bidirectional_attention", None)  # Gemma and Gemma 2 have the setting to no effect
    if sees_later == "all" or (sees_later and text.model_type == "gemma3_text"):
        return "lets tokens see those behind them (use_bidirectional_attention)"
    local = text.model_type == "gpt_neo" and "local" in text.attention_layers
    if local and 1 < text.window_size < context_length(config) - TEXT:
        return "counts its local windows by rows, which in a tree of draft tokens are not places"
    forward = _forward_of(config, trust_remote_code=trust_remote_code)
    if forward is None:
        return ""
    if not takes_positions(forward, config):
        return "takes no positions from outside (as with ALiBi), which a tree of draft tokens needs"
    if "past_key_values" not in inspect.signature(forward).parameters:
        return "takes no KV cache from outside, which drafts are rolled back in"
    return ""


def _forward_of(config: PretrainedConfig, *, trust_remote_code: bool) -> Callable[..., object] | None:
    """Of the class that is loaded for ``config``; None if it is not one of transformers, or needs what is not here."""
    if trust_remote_code and "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        return None
    try:
        kind = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    except ImportError:
        return None
    return None if kind is None else kind.forward
