"""A tiny Qwen2 as llama.cpp would write it: one GGUF file, or several parts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gguf
from gguf import GGUFWriter
from safetensors.numpy import load_file

_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def tiny_gguf(
    qwen2: Path, path: Path, *, parts: int = 1, keep: Callable[[str], bool] = lambda name: True
) -> list[Path]:
    """The model in the folder ``qwen2`` (with tied embeddings) as ``path``, in float32; returns the files in order.

    ``parts``: as llama-gguf-split cuts it, with names of its form. ``keep``: which tensors, by GGUF name.
    """
    tensors = {_gguf_name(name): data for name, data in load_file(qwen2 / "model.safetensors").items()}
    tensors = {name: data for name, data in tensors.items() if keep(name)}
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, "qwen2", split_max_tensors=-(-len(tensors) // parts) if parts > 1 else 0)
    config = json.loads((qwen2 / "config.json").read_text())
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    _add_tokenizer(writer, qwen2)
    for name, data in tensors.items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    names = writer.format_shard_names(path)
    writer.close()
    return names


def _gguf_name(name: str) -> str:
    module, _, kind = name.rpartition(".")
    if module.startswith("model.layers."):
        _, _, layer, rest = module.split(".", 3)
        return f"blk.{layer}.{_NAMES[rest]}.{kind}"
    return f"{_NAMES[module]}.{kind}"


def _add_tokenizer(writer: GGUFWriter, folder: Path) -> None:
    description = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = description["model"]["vocab"] | {t["content"]: t["id"] for t in description["added_tokens"]}
    special = {token["content"] for token in description["added_tokens"] if token["special"]}
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in description["model"]["merges"]])
    writer.add_eos_token_id(2)
    writer.add_chat_template((folder / "chat_template.jinja").read_text())
