"""Tiny real models for the tests: folders that ``CausalLM.load`` takes, with tokenizers trained on the spot.

Three families: Llama and Qwen2 shapes with byte-level BPE and a chat template, Gemma 3 with SentencePiece-style
tokens, byte fallback and sliding-window layers. A few seconds of training on one small text make them agree often
enough for drafts to be accepted. Everything is seeded.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from language_models.causal_lm import CausalLM


def load_tiny(path: Path) -> CausalLM:
    """In float32, on one thread."""
    return CausalLM.load(str(path), dtype="float32", threads=1)


CORPUS = (
    "The heron stands in the shallow water. The heron waits for a fish. A fish swims by, and the heron is quick.\n"
    "def add(a, b):\n    return a + b\n\n\ndef sub(a, b):\n    return a - b\n\n\ndef mul(a, b):\n    return a * b\n"
    "猫が座った。犬も座った。猫は魚を食べた。\nA dog 🐶 sat, a cat 🐱 sat, and a fish 🐟 swam by.\n"
    "The water is cold, and the dog waits for the cat. The cat waits for the fish.\n"
)

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_llama(path: Path, *, seed: int = 1, steps: int = 120, vocab: int = 420) -> Path:
    """A Llama with byte-level BPE, ChatML and some padding in its vocabulary."""
    size = byte_level_tokenizer(path, vocab)
    config = LlamaConfig(
        vocab_size=size + 8,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=2,
        bos_token_id=None,
    )
    return _make(path, config, seed, steps)


def tiny_qwen2(path: Path, *, seed: int = 2, steps: int = 120, vocab: int = 520) -> Path:
    """A Qwen2 with another byte-level vocabulary, tied embeddings and NFC normalisation."""
    size = byte_level_tokenizer(path, vocab, normalize=True)
    config = Qwen2Config(
        vocab_size=size,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=2,
        bos_token_id=None,
    )
    return _make(path, config, seed, steps)


def tiny_gemma(path: Path, *, seed: int = 3, steps: int = 120, vocab: int = 480, window: int = 16) -> Path:
    """A Gemma 3 with byte fallback, BOS, no chat template, and a window far shorter than the texts."""
    size = _sentencepiece_tokenizer(path, vocab)
    config = Gemma3TextConfig(
        vocab_size=size,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=16,
        query_pre_attn_scalar=16,
        max_position_embeddings=512,
        sliding_window=window,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        eos_token_id=1,
        bos_token_id=2,
        pad_token_id=0,
    )
    return _make(path, config, seed, steps)


def _make(path: Path, config: PretrainedConfig, seed: int, steps: int) -> Path:
    """Initialise, train on the corpus, save in float32."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float()
        tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        ids = torch.tensor(tokenizer.encode(CORPUS * 2).ids)
        optimiser = torch.optim.Adam(model.parameters(), lr=4e-3)
        generator = torch.Generator().manual_seed(seed)
        model.train()
        for _ in range(steps):
            starts = torch.randint(0, len(ids) - 65, (4,), generator=generator)
            batch = torch.stack([ids[start : start + 64] for start in starts])
            loss = model(input_ids=batch, labels=batch).loss
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        model.eval().save_pretrained(path)
    finally:
        torch.set_num_threads(threads)
    return path


def byte_level_tokenizer(path: Path, vocab: int, *, normalize: bool = False) -> int:
    """Fills a folder with a byte-level BPE of at most so many tokens; how many it has."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if normalize:
        tokenizer.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([CORPUS], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHAT_TEMPLATE
    path.mkdir(parents=True, exist_ok=True)
    fast.save_pretrained(path)
    return tokenizer.get_vocab_size()


def _sentencepiece_tokenizer(path: Path, vocab: int) -> int:
    """Spaces are written as a lower one eighth block, bytes without a token as <0xNN>."""
    specials = ["<pad>", "<eos>", "<bos>", "<unk>"]
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split(Regex("▁?[^▁]+"), "isolated")
    ascii_only = "".join(c for c in CORPUS if c.isascii())
    trainer = trainers.BpeTrainer(vocab_size=vocab - 256 - len(specials), show_progress=False)
    trained.train_from_iterator([ascii_only], trainer)
    description = json.loads(trained.to_str())["model"]
    tokens = specials + [f"<0x{byte:02X}>" for byte in range(256)]
    tokens += sorted(description["vocab"], key=lambda token: description["vocab"][token])
    merges = [tuple(merge) for merge in description["merges"]]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(tokens)},
            merges=merges,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in specials])
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", bos_token="<bos>", unk_token="<unk>", pad_token="<pad>"
    )
    path.mkdir(parents=True, exist_ok=True)
    fast.save_pretrained(path)
    return len(tokens)
