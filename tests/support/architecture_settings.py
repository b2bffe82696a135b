"""The decoder-only architectures of transformers that the tests and docs/architectures.md go through: data only.

Each is one class of layers, of positions or of caches; ``tiny_architectures.py`` makes a tiny random model of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Architecture:
    """``attention``: what its layers are and how they know positions. ``settings``: of its config, beside the sizes."""

    name: str
    attention: str
    model_type: str
    settings: Mapping[str, Any] = field(default_factory=dict)


_FULL, _SLIDING, _LINEAR = "full_attention", "sliding_attention", "linear_attention"
_MLA = {"num_key_value_heads": 4, "head_dim": 8, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
_BART = {
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 64,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "is_decoder": True,
    "is_encoder_decoder": False,
}


def _rope(kind: str, **settings: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10_000.0, **settings}}


ARCHITECTURES: tuple[Architecture, ...] = (
    # ---- full attention, rotary positions
    Architecture("llama", "full, RoPE", "llama"),
    Architecture("llama, linear RoPE", "full, RoPE scaled linearly", "llama", _rope("linear", factor=4.0)),
    Architecture(
        "llama, YaRN", "full, RoPE by YaRN", "llama", _rope("yarn", factor=4.0, original_max_position_embeddings=64)
    ),
    Architecture(
        "llama, llama3 RoPE",
        "full, RoPE by bands",
        "llama",
        _rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64),
    ),
    Architecture(
        "llama, dynamic RoPE", "full, RoPE that changes beyond the context", "llama", _rope("dynamic", factor=4.0)
    ),
    Architecture("mistral, full", "full, RoPE", "mistral", {"sliding_window": None}),
    Architecture("mixtral", "full, RoPE; experts", "mixtral", {"sliding_window": None}),
    Architecture("qwen2", "full, RoPE", "qwen2"),
    Architecture("qwen2_moe", "full, RoPE; experts", "qwen2_moe"),
    Architecture("qwen3", "full, RoPE, normed queries and keys", "qwen3"),
    Architecture("qwen3_moe", "full, RoPE, normed queries and keys; experts", "qwen3_moe"),
    Architecture("gemma", "full, RoPE", "gemma"),
    Architecture("phi", "full, RoPE on a part of a head", "phi"),
    Architecture("phi3", "full, RoPE", "phi3", {"sliding_window": None}),
    Architecture(
        "phi3, longrope",
        "full, RoPE that changes with the length",
        "phi3",
        {
            "sliding_window": None,
            "original_max_position_embeddings": 64,
            **_rope(
                "longrope",
                short_factor=[1.0] * 4,
                long_factor=[1.0, 2.0, 4.0, 8.0],
                factor=4.0,
                original_max_position_embeddings=64,
            ),
        },
    ),
    Architecture("phimoe", "full, RoPE; experts", "phimoe", {"sliding_window": None}),
    Architecture("gpt_neox", "full, RoPE on a part of a head", "gpt_neox"),
    Architecture("gpt_neox_japanese", "full, RoPE", "gpt_neox_japanese"),
    Architecture("gptj", "full, RoPE on a part of a head", "gptj", {"rotary_dim": 4}),
    Architecture("codegen", "full, RoPE on a part of a head", "codegen", {"rotary_dim": 4}),
    Architecture("falcon", "full, RoPE, one key head", "falcon"),
    Architecture("olmo", "full, RoPE", "olmo"),
    Architecture("olmo2", "full, RoPE, normed queries and keys", "olmo2"),
    Architecture("olmoe", "full, RoPE; experts", "olmoe"),
    Architecture("stablelm", "full, RoPE on a part of a head", "stablelm"),
    Architecture("starcoder2, full", "full, RoPE", "starcoder2", {"sliding_window": None}),
    Architecture("cohere", "full, RoPE", "cohere"),
    Architecture("granite", "full, RoPE", "granite"),
    Architecture("granitemoe", "full, RoPE; experts", "granitemoe"),
    Architecture("glm", "full, RoPE on a part of a head", "glm"),
    Architecture("glm4", "full, RoPE on a part of a head", "glm4"),
    Architecture("glm4_moe", "full, RoPE on a part of a head; experts", "glm4_moe", {"n_group": 1, "topk_group": 1}),
    Architecture("smollm3", "full, RoPE on some layers", "smollm3"),
    Architecture("ernie4_5", "full, RoPE", "ernie4_5"),
    Architecture("ernie4_5_moe", "full, RoPE; experts", "ernie4_5_moe"),
    Architecture("helium", "full, RoPE", "helium"),
    Architecture("nemotron", "full, RoPE on a part of a head", "nemotron"),
    Architecture("persimmon", "full, RoPE on a part of a head", "persimmon"),
    Architecture(
        "dbrx",
        "full, RoPE; experts",
        "dbrx",
        {
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10_000.0},
            "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
        },
    ),
    Architecture("arcee", "full, RoPE", "arcee"),
    Architecture("hunyuan_v1_dense", "full, RoPE, normed queries and keys", "hunyuan_v1_dense"),
    Architecture("hunyuan_v1_moe", "full, RoPE, normed queries and keys; experts", "hunyuan_v1_moe"),
    Architecture("seed_oss", "full, RoPE", "seed_oss"),
    Architecture("apertus", "full, RoPE, normed queries and keys", "apertus"),
    Architecture("ministral3", "full, RoPE, queries scaled by position", "ministral3"),
    Architecture("bitnet", "full, RoPE", "bitnet"),
    Architecture("diffllama", "full, difference of two softmaxes, RoPE", "diffllama"),
    Architecture("jetmoe", "full, RoPE; experts in the attention as well", "jetmoe", {"kv_channels": 8}),
    Architecture("nanochat", "full, RoPE, normed queries and keys", "nanochat"),
    Architecture("minimax_m2", "full, RoPE; experts", "minimax_m2"),
    Architecture("internlm3", "full, RoPE", "internlm3"),
    Architecture("dots1", "full, RoPE, normed queries and keys; experts", "dots1"),
    Architecture("flex_olmo", "full, RoPE; experts", "flex_olmo"),
    Architecture("hy_v3", "full, RoPE, normed queries and keys; experts", "hy_v3"),
    Architecture("doge", "full, masks by learned gates, RoPE", "doge"),
    # ---- full attention, keys and values of other sizes
    Architecture("youtu", "latent (MLA), RoPE", "youtu", _MLA),
    Architecture(
        "longcat_flash",
        "latent (MLA) twice a layer, RoPE; experts",
        "longcat_flash",
        {
            **_MLA,
            "num_layers": 2,
            "ffn_hidden_size": 32,
            "expert_ffn_hidden_size": 32,
            "zero_expert_num": 2,
            "moe_topk": 2,
        },
    ),
    Architecture("deepseek_v2", "latent (MLA), RoPE; experts", "deepseek_v2", _MLA),
    Architecture("deepseek_v3", "latent (MLA), RoPE; experts", "deepseek_v3", _MLA),
    Architecture("minicpm3", "latent (MLA), RoPE", "minicpm3", {"num_key_value_heads": 4, "head_dim": 8}),
    # ---- full attention, other positions
    Architecture("gpt2", "full, learned positions", "gpt2"),
    Architecture("openai-gpt", "full, learned positions, no cache", "openai-gpt"),
    Architecture("opt", "full, learned positions", "opt"),
    Architecture("biogpt", "full, learned positions", "biogpt"),
    Architecture("gpt_bigcode", "full, learned positions, one key head", "gpt_bigcode"),
    Architecture("xglm", "full, sinusoidal positions", "xglm", {"num_layers": 2, "attention_heads": 4}),
    Architecture("ctrl", "full, sinusoidal positions", "ctrl", {"dff": 64}),
    Architecture("bloom", "full, ALiBi", "bloom"),
    Architecture("mpt", "full, ALiBi", "mpt"),
    Architecture("falcon, ALiBi", "full, ALiBi", "falcon", {"alibi": True, "new_decoder_architecture": False}),
    Architecture("roberta, decoder", "full, learned positions", "roberta", {"is_decoder": True}),
    Architecture("bert, decoder", "full, learned positions", "bert", {"is_decoder": True}),
    Architecture("bart, decoder", "full, learned positions", "bart", _BART),
    # ---- sliding windows
    Architecture("mistral", "sliding window, RoPE", "mistral"),
    Architecture("starcoder2", "sliding window, RoPE", "starcoder2"),
    Architecture(
        "qwen2, windows",
        "full and sliding window, RoPE",
        "qwen2",
        {"use_sliding_window": True, "max_window_layers": 1, "layer_types": [_FULL, _SLIDING]},
    ),
    Architecture("gemma2", "full and sliding window, capped scores, RoPE", "gemma2", {"query_pre_attn_scalar": 8}),
    Architecture(
        "gemma3_text",
        "full and sliding window, RoPE",
        "gemma3_text",
        {"query_pre_attn_scalar": 8, "layer_types": [_SLIDING, _FULL]},
    ),
    Architecture(
        "gemma3_text, bidirectional",
        "sees later tokens, RoPE",
        "gemma3_text",
        {"query_pre_attn_scalar": 8, "layer_types": [_SLIDING, _FULL], "use_bidirectional_attention": True},
    ),
    Architecture(
        "vaultgemma", "full and sliding window, capped scores, RoPE", "vaultgemma", {"query_pre_attn_scalar": 8}
    ),
    Architecture(
        "cohere2", "full and sliding window, RoPE on some layers", "cohere2", {"layer_types": [_SLIDING, _FULL]}
    ),
    Architecture("olmo3", "full and sliding window, RoPE", "olmo3", {"layer_types": [_SLIDING, _FULL]}),
    Architecture(
        "exaone4", "full and sliding window, RoPE on some layers", "exaone4", {"layer_types": [_SLIDING, _FULL]}
    ),
    Architecture("cwm", "full and sliding window, RoPE", "cwm"),
    Architecture("ministral", "full and sliding window, RoPE", "ministral", {"layer_types": [_SLIDING, _FULL]}),
    Architecture("granite_swa", "full and sliding window, RoPE", "granite_swa"),
    Architecture("afmoe", "sliding window, RoPE; experts", "afmoe"),
    Architecture("exaone_moe", "sliding window, RoPE; experts", "exaone_moe"),
    Architecture("mimo_v2_flash", "full and sliding window, sinks, RoPE; experts", "mimo_v2_flash"),
    Architecture("modernbert-decoder", "full and sliding window, RoPE", "modernbert-decoder", {"local_attention": 16}),
    Architecture("gpt_oss", "full and sliding window, sinks, RoPE; experts", "gpt_oss", {"head_dim": 8}),
    Architecture(
        "gpt_neo",
        "full and local windows, learned positions",
        "gpt_neo",
        {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 16},
    ),
    # ---- caches shared by layers
    Architecture(
        "gemma3n_text",
        "full and sliding window, keys shared by layers, RoPE",
        "gemma3n_text",
        {
            "num_hidden_layers": 4,
            "layer_types": [_SLIDING, _FULL] * 2,
            "num_kv_shared_layers": 2,
            "vocab_size_per_layer_input": 400,
            "hidden_size_per_layer_input": 8,
            "laurel_rank": 8,
            "activation_sparsity_pattern": [0.0] * 4,
            "intermediate_size": [64] * 4,
        },
    ),
    Architecture(
        "gemma4_text",
        "full and sliding window, keys shared by layers, RoPE",
        "gemma4_text",
        {
            "num_hidden_layers": 4,
            "layer_types": [_SLIDING, _FULL] * 2,
            "num_kv_shared_layers": 2,
            "vocab_size_per_layer_input": 400,
            "hidden_size_per_layer_input": 8,
            "global_head_dim": 16,
        },
    ),
    # ---- windows by blocks, keys chosen by an index of their own
    Architecture("deepseek_v32", "indexed latent (MLA), RoPE; experts", "deepseek_v32", _MLA),
    Architecture(
        "llama4_text",
        "chunked, RoPE; experts",
        "llama4_text",
        {"attention_chunk_size": 16, "intermediate_size_mlp": 64},
    ),
    # ---- recurrent state, with or without attention beside it
    Architecture("mamba", "state space", "mamba", {"state_size": 8}),
    Architecture("mamba2", "state space", "mamba2", {"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1}),
    Architecture("falcon_mamba", "state space", "falcon_mamba", {"state_size": 8}),
    Architecture("rwkv", "recurrent", "rwkv", {"context_length": 256, "attention_hidden_size": 32}),
    Architecture("jamba", "state space and full attention", "jamba", {"attn_layer_period": 2, "attn_layer_offset": 1}),
    Architecture("bamba", "state space and full attention, RoPE", "bamba", {"attn_layer_indices": [1]}),
    Architecture("falcon_h1", "state space beside full attention, RoPE", "falcon_h1", {"mamba_d_ssm": 64}),
    Architecture(
        "granitemoehybrid",
        "state space and full attention; experts",
        "granitemoehybrid",
        {"layer_types": ["mamba", "attention"], "shared_intermediate_size": 32},
    ),
    Architecture(
        "nemotron_h",
        "state space and full attention",
        "nemotron_h",
        {
            "layers_block_type": ["mamba", "attention"],
            "mamba_num_heads": 4,
            "mamba_head_dim": 16,
            "ssm_state_size": 8,
            "n_groups": 1,
            "moe_shared_expert_intermediate_size": 32,
        },
    ),
    Architecture(
        "recurrent_gemma",
        "recurrent and sliding window, RoPE",
        "recurrent_gemma",
        {"block_types": ["recurrent", "attention"], "attention_window_size": 16, "lru_width": 32},
    ),
    Architecture("lfm2", "short convolutions and full attention, RoPE", "lfm2", {"layer_types": ["conv", _FULL]}),
    Architecture("minimax", "linear and full attention, RoPE; experts", "minimax"),
    Architecture(
        "qwen3_next", "linear and full attention, RoPE; experts", "qwen3_next", {"layer_types": [_LINEAR, _FULL]}
    ),
    Architecture(
        "qwen3_5_moe_text",
        "linear and full attention, RoPE; experts",
        "qwen3_5_moe_text",
        {"layer_types": [_LINEAR, _FULL]},
    ),
    Architecture("olmo_hybrid", "linear and full attention, RoPE", "olmo_hybrid", {"layer_types": [_LINEAR, _FULL]}),
    Architecture(
        "lfm2_moe", "short convolutions and full attention, RoPE; experts", "lfm2_moe", {"layer_types": ["conv", _FULL]}
    ),
    Architecture("qwen3_5_text", "linear and full attention, RoPE", "qwen3_5_text", {"layer_types": [_LINEAR, _FULL]}),
    # ---- no causal decoders
    Architecture("roberta", "sees later tokens", "roberta"),
    Architecture("bert", "sees later tokens", "bert"),
    Architecture("xlnet", "sees later tokens, relative positions", "xlnet", {"d_inner": 64}),
)
