"""Where tokens stand: how long a model's context is, where its positions begin, and its rotary frequencies by row.

A token's position is a function of the token alone, whatever rows run beside it. Two kinds of models need care:

* RoBERTa and its kin number positions from the padding token's id + 1.
* Rotary embeddings of the kind ``longrope`` have two sets of frequencies, and transformers takes the set for all rows
  of a call by the largest position among them: a draft beyond the border, or a chunk of prefill across it, would change
  the rows before it. Here each row has the set of its own position, which is what decoding token by token gives.
  (Those of the kind ``dynamic`` change beyond the context only, which no row ever is. So they are taken as they stand:
  to look at the positions is to wait for the device, and cannot be part of a CUDA graph.)
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

#: What configurations call the number of positions, the commonest first.
_CONTEXT_NAMES = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "max_sequence_length",
    "max_seq_length",
    "n_ctx",
    "context_length",
    "max_target_positions",
)
#: Tokens of context for models whose configuration names no bound (positions by ALiBi, or none).
UNBOUNDED_CONTEXT = 2048
#: Kinds of rotary embedding whose frequencies never depend on the positions of a call.
_STATIC_ROPE = frozenset({"default", "linear", "llama3", "yarn", "proportional", "dynamic"})
#: Model types whose positions begin at the padding token's id + 1.
_FROM_PADDING = frozenset(
    {"roberta", "roberta-prelayernorm", "camembert", "xlm-roberta", "xlm-roberta-xl", "xmod", "data2vec-text"}
)


def context_length(config: PretrainedConfig) -> int:
    """Tokens of a text with its prompt, by whatever name ``config`` has for it, else ``UNBOUNDED_CONTEXT``."""
    bound = _named_context(config)
    return UNBOUNDED_CONTEXT if bound is None else bound - first_position(config)


def context_remark(config: PretrainedConfig) -> str:
    """What a user should know about the context; "" if it is as the configuration says."""
    if _named_context(config) is None:
        return f"the configuration names no context length: texts end at {UNBOUNDED_CONTEXT:,} tokens"
    borders = sorted({border for border in rope_borders(config) if border < context_length(config)})
    if borders:
        return (
            f"the rotary frequencies change at {borders[0]:,} tokens, for each token by its own position: longer texts "
            "may differ from those of transformers' generate, which computes the whole text anew there"
        )
    return ""


def first_position(config: PretrainedConfig) -> int:
    """The position of a text's first token."""
    text = config.get_text_config(decoder=True)
    return text.pad_token_id + 1 if text.model_type in _FROM_PADDING and text.pad_token_id is not None else 0


def takes_positions(forward: Callable[..., object], config: PretrainedConfig) -> bool:
    """Whether a token stands where ``forward`` of a model is told, not where its row is."""
    return "position_ids" in inspect.signature(forward).parameters and not getattr(config, "alibi", False)


def rope_borders(config: PretrainedConfig) -> list[int]:
    """Positions from which on rotary frequencies are others, for each set of parameters that has such."""
    parameters = getattr(config.get_text_config(decoder=True), "rope_parameters", None)
    return [border for entry in _entries(parameters) if (border := _border(entry)) is not None]


def fix_frequencies(model: nn.Module) -> None:
    """Make the rotary embeddings of ``model`` a function of each row's own position (see the module), in place."""
    for module in model.modules():
        parameters = getattr(getattr(module, "config", None), "rope_parameters", None)
        if not hasattr(module, "rope_type"):
            continue
        if any(_border(entry) is not None for entry in _entries(parameters)):
            module.forward = functools.partial(_forward_by_row, module.forward, parameters or {})
        elif any(entry.get("rope_type") == "dynamic" for entry in _entries(parameters)):
            # Without transformers' look at the largest position of the call.
            module.forward = functools.partial(inspect.unwrap(type(module).forward), module)


def _forward_by_row(
    forward: Callable[..., tuple[Tensor, Tensor]],
    parameters: Mapping[str, Any],
    x: Tensor,
    position_ids: Tensor,
    layer_type: str | None = None,
) -> tuple[Tensor, Tensor]:
    """``forward`` called for the rows before the border and for those beyond it, each as if they were alone."""
    options = {} if layer_type is None else {"layer_type": layer_type}
    border = _border(parameters if layer_type is None else parameters[layer_type])
    beyond = position_ids >= border if border is not None else torch.zeros_like(position_ids, dtype=torch.bool)
    # Both for all rows, whichever they need: which they are is known on the device, and a CUDA graph has no branches.
    before = forward(x, torch.where(beyond, 0, position_ids), **options)
    after = forward(x, torch.where(beyond, position_ids, position_ids.max()), **options)
    rows = beyond[..., None]
    return torch.where(rows, after[0], before[0]), torch.where(rows, after[1], before[1])


def _entries(parameters: Any) -> Iterator[Mapping[str, Any]]:
    """The sets of rotary parameters of a configuration: one, or one by layer type."""
    if isinstance(parameters, Mapping):
        if "rope_type" in parameters:
            yield parameters
        else:
            yield from (entry for entry in parameters.values() if isinstance(entry, Mapping))


def _border(entry: Mapping[str, Any]) -> int | None:
    if entry.get("rope_type", "default") in _STATIC_ROPE:
        return None
    return entry.get("original_max_position_embeddings")


def _named_context(config: PretrainedConfig) -> int | None:
    text = config.get_text_config(decoder=True)
    for name in _CONTEXT_NAMES:
        bound = getattr(text, name, None)
        if isinstance(bound, int) and bound > 0:
            return bound
    return None
