"""Tiny random models of many architectures: folders that any command takes, each made in a fraction of a second.

Their weights are random but not small: every token's logits depend on those before it and on their places, so that
a wrong mask, position or cache shows. They share one byte-level tokenizer; nothing is trained.
"""

from __future__ import annotations

import dataclasses
import shutil
import zlib
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from language_models.quiet import quiet
from tests.support.architecture_settings import ARCHITECTURES, Architecture
from tests.support.tiny_models import byte_level_tokenizer

NAMES = tuple(architecture.name for architecture in ARCHITECTURES)
#: Of the tokenizer, and of the models: some of their tokens are padding.
_TOKENS, _VOCABULARY = 380, 388
_BY_NAME = {architecture.name: architecture for architecture in ARCHITECTURES}
#: Whichever of these a configuration has a field for.
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "sliding_window": 16,
    # Older names of the same.
    "n_embd": 32,
    "n_inner": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 256,
    "d_model": 32,
    "n_heads": 4,
    "n_layers": 2,
    "max_seq_len": 256,
    "ffn_dim": 64,
    # Mixtures of experts.
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    # Multi-head latent attention.
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    # State-space and linear-attention layers.
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_d_state": 8,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}


def tiny_architecture(name: str, path: Path, *, tokenizer: Path | None = None, **settings: Any) -> Path:
    """A folder ``path`` with a random model of the architecture ``name`` of ``ARCHITECTURES``, in float32.

    ``tokenizer``: a folder that ``shared_tokenizer`` filled; made anew without one. ``settings``: of the config, in
    place of the tiny ones.
    """
    if tokenizer is None:
        shared_tokenizer(path)
    else:
        shutil.copytree(tokenizer, path, dirs_exist_ok=True)
    with quiet():
        config = architecture_config(_BY_NAME[name], **settings)
        random_model(config, seed=zlib.crc32(name.encode())).save_pretrained(path)
    return path


def shared_tokenizer(path: Path) -> Path:
    """Fills a folder with the tokenizer that all of them have: byte-level BPE with a chat template."""
    byte_level_tokenizer(path, _TOKENS)
    return path


def architecture_config(architecture: Architecture, **settings: Any) -> PretrainedConfig:
    """Of a tiny model. ``settings`` go before those of the architecture, and these before the sizes."""
    kind = CONFIG_MAPPING[architecture.model_type]
    renamed = getattr(kind, "attribute_map", {})
    fields = {field.name for field in dataclasses.fields(kind)}
    tokens = {"vocab_size": _VOCABULARY, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 2}
    chosen: dict[str, Any] = {}
    for given in (SIZES, tokens, architecture.settings, settings):
        own = {renamed.get(name, name): value for name, value in given.items()}
        chosen |= own if given is not SIZES else {name: size for name, size in own.items() if name in fields}
    return kind(**chosen)


def random_model(config: PretrainedConfig, *, seed: int) -> PreTrainedModel:
    """With weights that keep the size of what runs through them, and so let attention choose."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
        embeddings = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim >= 2:
                    weight.normal_(0.0, 1.0 if id(weight) in embeddings else weight.shape[-1] ** -0.5)
    return model
