"""A model and a tokenizer of transformers that a program holds already, as a ``CausalLM``.

Nothing of them is changed for good: the weights are not packed, and attention that keeps bits is taken back at the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from language_models.causal_lm import CausalLM
from language_models.causal_self_test import self_test
from language_models.kv_cache import layer_windows
from language_models.steady_attention import steady_attention
from language_models.tokenizer import TextTokenizer
from speculation.errors import InputError, UnsupportedModelError


@contextlib.contextmanager
def opened(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Iterator[CausalLM]:
    """The model as a target, tried with its own weights as every one that is loaded by name.

    In 16 bits on a CPU it attends inside the block in a way that keeps the bits of a text whatever runs beside it.
    A token that stands for no text can be drawn, as ``generate`` draws it.

    Raises InputError for what is no decoder-only language model ready to write, UnsupportedModelError for one whose
    text could depend on drafts.
    """
    name = _name_of(model)
    _check_kind(model, name)
    with steady_attention(model):
        vocab_size = model.config.get_text_config(decoder=True).vocab_size
        text_tokenizer = TextTokenizer.of(tokenizer, _end_ids(model, tokenizer), vocab_size, name)
        vocab = text_tokenizer.vocab
        padding = {token: f"<{token}>" for token in vocab.padding_ids}
        text_tokenizer.vocab = dataclasses.replace(vocab, special={**vocab.special, **padding})
        dtype_name = str(model.dtype).removeprefix("torch.")
        causal = CausalLM(model, text_tokenizer, name=name, dtype_name=dtype_name)
        if model.dtype is torch.float32:  # no bits are promised; and ``generate`` runs single rows too
            causal.least_rows = 1
        causal.self_test = self_test(causal)
        _check_test(causal)
        yield causal


def _name_of(model: PreTrainedModel) -> str:
    return Path(getattr(model, "name_or_path", "") or type(model).__name__).name


def _check_kind(model: PreTrainedModel, name: str) -> None:
    if not isinstance(model, PreTrainedModel) or not model.can_generate():
        problem = "is no language model of transformers"
        raise InputError("model", type(model).__name__, problem, remedy="load it with AutoModelForCausalLM")
    if model.config.is_encoder_decoder:
        raise InputError("model", name, "has an encoder", remedy="use a decoder-only language model")
    if model.training:
        raise InputError("model", name, "is in training mode: it drops out at random", remedy="call model.eval()")
    layer_windows(model.config)


def _end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """As ``generate`` has them."""
    ends = model.generation_config.eos_token_id if model.generation_config is not None else None
    if ends is None:
        ends = tokenizer.eos_token_id
    return list(ends) if isinstance(ends, list) else [ends] if ends is not None else []


def _check_test(causal: CausalLM) -> None:
    found = causal.self_test
    problem = found.faults[0] if found.faults else ""
    if causal.dtype_name == "bfloat16":  # on a CPU: there it promises the bits
        problem = problem or found.row_dependence
    if problem:
        raise UnsupportedModelError(
            f"{causal.name} ({causal.config.model_type}) cannot be drafted for, its text would depend on the drafts: "
            f"{problem}",
            remedy='load it with dtype=torch.float32, and attn_implementation="sdpa" or "eager"',
        )
