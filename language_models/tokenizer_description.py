"""A tokenizer by its own description (tokenizer.json): copies that read text differently, and its tokens as bytes."""

from __future__ import annotations

import copy
import json
from collections.abc import Container, Iterator
from typing import Any

from tokenizers import Tokenizer

from speculation.errors import UnsupportedModelError
from speculation.text.byte_vocab import ByteVocab

Description = dict[str, Any]


def literal_copy(description: Description, names: Container[str]) -> Tokenizer:
    """The tokenizer with special tokens, and added tokens of these ``names``, taken for the text that spells them.

    Normal forms and spaces remain as the model's habit is.
    """
    added = [
        token | {"special": token["special"] or token["content"] in names} for token in description["added_tokens"]
    ]
    model = description["model"]
    if model["type"] == "Unigram":
        # It finds the names among its pieces as well, where they must not be found: they are called something else.
        literal = {token["content"]: f"\ufdd0{token['id']}" for token in added if token["special"]}
        added = [token | {"content": literal.get(token["content"], token["content"])} for token in added]
        model = model | {"vocab": [[literal.get(piece, piece), score] for piece, score in model["vocab"]]}
    tokenizer = Tokenizer.from_str(json.dumps(description | {"added_tokens": added, "model": model}))
    tokenizer.encode_special_tokens = True
    return tokenizer


def for_pieces(description: Description) -> Description:
    """Of the tokenizer that takes a piece out of the middle of a text as it is: no space before it, no normal form."""
    pre_tokenizer = copy.deepcopy(description.get("pre_tokenizer"))
    for part in _parts(pre_tokenizer, "pretokenizers"):
        if part["type"] == "Metaspace":
            part["prepend_scheme"] = "never"
        if part["type"] == "ByteLevel":
            part["add_prefix_space"] = False
    # Normal forms would change a draft's bytes; only SentencePiece's spelling of the space is needed.
    kept = [part for part in _parts(description.get("normalizer"), "normalizers") if part["type"] == "Replace"]
    normalizer = {"type": "Sequence", "normalizers": kept} if kept else None
    return description | {"pre_tokenizer": pre_tokenizer, "normalizer": normalizer}


def _parts(section: Description | None, key: str) -> Iterator[Description]:
    """The section of a tokenizer's description, or what it is a sequence of."""
    if section is None:
        return
    if section["type"] == "Sequence":
        for part in section[key]:
            yield from _parts(part, key)
    else:
        yield section


def token_names(description: Description) -> dict[int, str]:
    """Every id that the tokenizer has, with the token as it is spelled there."""
    return _model_tokens(description["model"]) | {t["id"]: t["content"] for t in description["added_tokens"]}


def _model_tokens(model: Description) -> dict[int, str]:
    vocab = model["vocab"]
    return dict(enumerate(t for t, _ in vocab)) if isinstance(vocab, list) else {i: t for t, i in vocab.items()}


def byte_vocab(description: Description, end_ids: list[int], size: int, name: str) -> ByteVocab:
    """From the description, by id: ``get_vocab()`` is in no order and hides duplicates.

    ``size``: the model's; what the tokenizer knows beyond it is left out. Raises UnsupportedModelError.
    """
    model = description["model"]
    tokens = _model_tokens(model)
    added = {t["id"]: t["content"] for t in description["added_tokens"]}
    special = [t["id"] for t in description["added_tokens"] if t["special"]]
    decoders = {part["type"] for part in _parts(description.get("decoder"), "decoders")}
    if "ByteLevel" in decoders:
        make = ByteVocab.from_byte_level
    elif model.get("byte_fallback") or decoders & {"ByteFallback", "Metaspace"}:
        make = ByteVocab.from_sentencepiece
    else:
        raise UnsupportedModelError(
            f"{name} has a {model['type']} tokenizer that is neither byte-level nor SentencePiece",
            remedy="use a model whose tokens are exact bytes",
        )
    return make(tokens, added=added, special={*special, *end_ids}, end_ids=end_ids, size=size)
