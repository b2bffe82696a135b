"""A model's tokenizer, for text that must stay text.

Two copies of the tokenizer stand side by side: one parses special tokens and renders chat templates, the other takes
every text literally, so that neither a draft nor a user's words that spell ``<|im_end|>`` become the special token.

Invariant where ``self_test`` finds nothing: ``vocab.text(encode(s)) == s.encode()``.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from language_models.weights import ModelFiles
from speculation.byte_vocab import ByteVocab
from speculation.errors import InputError, ModelError, UnsupportedModelError
from speculation.messages import Prompt

#: Special tokens that end a text, by the names that models give them: a chat model that is made to continue raw text
#: ends with the end token of its pre-training, which its settings often do not list.
END_NAMES = frozenset(
    {"<|endoftext|>", "<|im_end|>", "</s>", "<eos>", "<end_of_turn>", "<|eot_id|>", "<|end_of_text|>"}
)

SELF_TEST = (
    "Hello, world!",
    " leading space",
    "  two  spaces  ",
    "\tif x:\n\t\treturn {'a': [1, 2]}  # tab\n",
    "line\r\nline\n\n\nline",
    "nul \x00 byte",
    "emoji 🐶👩‍👩‍👧 and 猫が座った",
    "combining e\u0301 and a\u030a",
    "a" + " " * 70 + "b" + "\n" * 9,
    "<|im_end|> </s> <bos> is text",
)


class TextTokenizer:
    """See the module. Make it with ``from_pretrained``."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocab: ByteVocab) -> None:
        self.vocab = vocab
        self._tokenizer = tokenizer
        self._parsing: Tokenizer = tokenizer.backend_tokenizer
        description = json.loads(self._parsing.to_str())
        self._prompting = _literal(description)
        self._literal = _literal(_for_pieces(description))
        self._special_names = tuple(vocab.special.values())

    @classmethod
    def from_pretrained(cls, files: ModelFiles, vocab_size: int) -> TextTokenizer:
        """``vocab_size``: the model's, which may be padded. Raises ModelError, UnsupportedModelError."""
        try:
            tokenizer = AutoTokenizer.from_pretrained(files.source, local_files_only=files.local)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"the tokenizer of {files.name} cannot be loaded: {error}") from error
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise UnsupportedModelError(
                f"{files.name} has no fast tokenizer, so its vocabulary cannot be read as bytes",
                remedy="convert it to tokenizer.json",
            )
        end_ids = _end_ids(tokenizer, files)
        return cls(tokenizer, _byte_vocab(tokenizer, end_ids, vocab_size, files.name))

    # ---- text to tokens ---------------------------------------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        """Ordinary text in the middle of a text: nothing added, nothing parsed."""
        return self._literal.encode(text, add_special_tokens=False).ids

    def encode_prompt(self, text: str) -> list[int]:
        """A raw prompt: with BOS and leading space if that is the model's habit, nothing parsed."""
        return self._prompting.encode(text, add_special_tokens=True).ids

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """A request's prompt, raw text or messages, as this model is to read it."""
        if prompt.text is not None:
            return self.encode_prompt(prompt.text)
        return self.encode_chat([{"role": m.role, "content": m.content} for m in prompt.messages])

    @property
    def has_chat_template(self) -> bool:
        return bool(self._tokenizer.chat_template)

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Messages ({role, content}) through the model's chat template, up to where the answer begins.

        A model without a template gets a plain transcript. Raises InputError if the template refuses the messages.
        """
        if not self.has_chat_template:
            turns = "".join(f"{m['role'].capitalize()}: {m['content']}\n" for m in messages)
            return self.encode_prompt(turns + "Assistant:")
        if not any(name in m["content"] for m in messages for name in self._special_names):
            return self._parse(self._render(messages))
        # Some content spells a special token. Render around place holders, then take template and content apart.
        places = [f"\ue000{uuid.uuid4().hex}\ue001" for _ in messages]
        rendered = self._render([{**m, "content": place} for m, place in zip(messages, places, strict=True)])
        ids: list[int] = []
        for message, place in zip(messages, places, strict=True):
            before, found, rendered = rendered.partition(place)
            if not found:
                raise InputError("messages", message["content"], "cannot be set into this model's chat template")
            ids += self._parse(before) + self.encode(message["content"])
        return ids + self._parse(rendered)

    def _parse(self, text: str) -> list[int]:
        return self._parsing.encode(text, add_special_tokens=False).ids

    def _render(self, messages: Sequence[Mapping[str, str]]) -> str:
        try:
            rendered = self._tokenizer.apply_chat_template(
                [dict(m) for m in messages], tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # templates raise what they like
            raise InputError("messages", [m["role"] for m in messages], f"the chat template says: {error}") from error
        assert isinstance(rendered, str)
        return rendered

    # ---- proof ------------------------------------------------------------------------------------------------

    def self_test(self) -> list[str]:
        """Texts that do not come back from tokens byte for byte, each with what came instead. Empty is exact."""
        return [
            f"{text!r} comes back as {came!r}"
            for text in SELF_TEST
            if (came := self.vocab.text(self.encode(text))) != text.encode()
        ]


def _literal(description: dict[str, Any]) -> Tokenizer:
    tokenizer = Tokenizer.from_str(json.dumps(description))
    tokenizer.encode_special_tokens = True
    return tokenizer


def _for_pieces(description: dict[str, Any]) -> dict[str, Any]:
    """The tokenizer that takes a piece out of the middle of a text as it is: no space before it, no normal form."""
    description = json.loads(json.dumps(description))
    for part in _parts(description.get("pre_tokenizer"), "pretokenizers"):
        if part["type"] == "Metaspace":
            part["prepend_scheme"] = "never"
        if part["type"] == "ByteLevel":
            part["add_prefix_space"] = False
    normalizer = description.get("normalizer")
    # Normal forms would change a draft's bytes; only SentencePiece's spelling of the space is needed.
    kept = [part for part in _parts(normalizer, "normalizers") if part["type"] == "Replace"]
    description["normalizer"] = {"type": "Sequence", "normalizers": kept} if kept else None
    return description


def _parts(section: dict[str, Any] | None, key: str) -> Iterator[dict[str, Any]]:
    """The section of a tokenizer's description, or what it is a sequence of."""
    if section is None:
        return
    if section["type"] == "Sequence":
        for part in section[key]:
            yield from _parts(part, key)
    else:
        yield section


def _byte_vocab(tokenizer: PreTrainedTokenizerBase, end_ids: list[int], size: int, name: str) -> ByteVocab:
    """From the tokenizer's own description, by id: ``get_vocab()`` is in no order and hides duplicates."""
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    model = description["model"]
    vocab = model["vocab"]
    tokens = dict(enumerate(t for t, _ in vocab)) if isinstance(vocab, list) else {i: t for t, i in vocab.items()}
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


def _end_ids(tokenizer: PreTrainedTokenizerBase, files: ModelFiles) -> list[int]:
    """Ids that end a text; first the one that ends an assistant's turn, or else the tokenizer's own."""
    added = {token.content: i for i, token in tokenizer.added_tokens_decoder.items()}
    found = [_end_of_turn(tokenizer, added), tokenizer.eos_token_id]
    try:
        listed = GenerationConfig.from_pretrained(files.source, local_files_only=files.local).eos_token_id
    except (OSError, ValueError):
        listed = None  # optional
    found += listed if isinstance(listed, list) else [listed]
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    found += [i for content, i in added.items() if content in END_NAMES & special]
    return list(dict.fromkeys(i for i in found if i is not None))


def _end_of_turn(tokenizer: PreTrainedTokenizerBase, added: Mapping[str, int]) -> int | None:
    """The special token that the chat template puts behind an assistant's words."""
    if not tokenizer.chat_template:
        return None
    words = "dragomansays"
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": words}]
    try:
        rendered = tokenizer.apply_chat_template(turns, tokenize=False)
    except Exception:  # a template with demands of its own
        return None
    assert isinstance(rendered, str)
    after = rendered.rpartition(words)[2].lstrip()
    names = [name for name in added if after.startswith(name)]
    return added[max(names, key=len)] if names else None
