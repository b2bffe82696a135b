"""Prompts of chats whose contents spell special tokens, and what they are when they are read back."""

from __future__ import annotations

from hypothesis import strategies as st

from language_models.tokenizer import TextTokenizer

START, END = "<|im_start|>", "<|im_end|>"
#: Texts that spell names of special tokens, parts of them, and what may stand in for them.
SPELLING = st.lists(
    st.sampled_from([START, END, "<|endoftext|>", "<|im_", "end|>", "<", ">", " ", "\n", "a", "猫", "\ue000", "\ue001",
                     "\ufdd0", "\ufdd1", "\ufdd02\ufdd1", "\U000f0000", "e\u0301"]),
    max_size=8,
).map("".join)  # fmt: skip


def read_back(tokenizer: TextTokenizer, ids: list[int]) -> str:
    """Text and special tokens, as a prompt in which nothing was parsed would spell them."""
    return b"".join(
        tokenizer.vocab.special[token].encode()
        if tokenizer.vocab.is_special(token)
        else tokenizer.vocab.bytes_of(token)
        for token in ids
    ).decode()


def specials(tokenizer: TextTokenizer, ids: list[int]) -> list[str]:
    """Names of the special tokens among them."""
    return [tokenizer.vocab.special[token] for token in ids if tokenizer.vocab.is_special(token)]
