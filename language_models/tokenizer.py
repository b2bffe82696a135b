"""A model's tokenizer, for text that must stay text.

Copies of the tokenizer stand side by side: one parses special tokens, as what a chat template writes needs it, others
take every text literally, so that neither a draft nor a user's words that spell ``<|im_end|>`` become the special
token. Literal is what is special by the tokenizer's word, every token that ends a text, and those that the chat
template writes around the turns; other added tokens are text that has a token of its own.

Invariant where ``self_test`` finds nothing: ``vocab.text(encode(s)) == s.encode()``.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence

from tokenizers import Encoding, Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from language_models.chat_template import ChatTemplate
from language_models.conversation import Conversation, Message
from language_models.custom_code import custom_code_error
from language_models.end_tokens import find_end_ids
from language_models.special_names import LEFT, PickyParser, SpecialNames
from language_models.tokenizer_check import findings
from language_models.tokenizer_description import Description, byte_vocab, for_pieces, literal_copy, token_names
from language_models.tool_templates import tool_format_of, tool_texts
from language_models.weights import ModelFiles
from speculation.errors import InputError, ModelError, UnsupportedFieldError, UnsupportedModelError
from speculation.protocol.messages import Prompt
from speculation.protocol.tools import ToolFormat
from speculation.text.byte_vocab import ByteVocab


class TextTokenizer:
    """A model's tokenizer with exact bytes for every token.

    Make it with ``from_pretrained``. ``end_ids``: also those that the model does not have.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, vocab: ByteVocab, end_ids: Sequence[int], description: Description
    ) -> None:
        self.vocab = vocab
        self.end_ids = tuple(end_ids)
        self.added: dict[int, str] = {token["id"]: token["content"] for token in description["added_tokens"]}
        self.template = ChatTemplate(tokenizer)
        self._tokenizer = tokenizer
        self._parsing: Tokenizer = tokenizer.backend_tokenizer
        ends = {self.added[token] for token in end_ids if token in self.added}
        special = {token["content"] for token in description["added_tokens"] if token["special"]}
        around_turns = ends | self._written(self.template.conversations(answer=False))
        #: Names that are text where a user spells them; who spelled that of an answer of a tool would forge one.
        written = self._written([*self.template.conversations(answer=True), *tool_texts(self.template)])
        self.names = SpecialNames(special | around_turns | written)
        #: Tokens of ordinary text that the tokenizer has and the model has not.
        self.text_beyond = {i: name for i, name in token_names(description).items() if i >= vocab.size}
        self.text_beyond = {i: name for i, name in self.text_beyond.items() if self.added.get(i) not in self.names}
        self._prompting = literal_copy(description, self.names)
        # What models wrote, or may write: <think>, say, is the token that the model would write itself.
        self._literal = literal_copy(for_pieces(description), around_turns)
        if self.template:
            self._picky  # noqa: B018  takes seconds where the vocabulary is large, which no request shall wait for

    @classmethod
    def from_pretrained(cls, files: ModelFiles, vocab_size: int) -> TextTokenizer:
        """``vocab_size``: the model's, which may be padded, or less than the tokenizer's.

        Raises ModelError, UnsupportedModelError.
        """
        try:
            return cls._read(files, vocab_size)
        except UnsupportedModelError:
            raise
        except Exception as error:  # the readers of a tokenizer's files raise what they like
            if refused := custom_code_error(files, error):
                raise refused from error
            reason = str(error).strip() or type(error).__name__
            raise ModelError(f"the tokenizer of {files.name} cannot be loaded: {reason}") from error

    @classmethod
    def _read(cls, files: ModelFiles, vocab_size: int) -> TextTokenizer:
        tokenizer = AutoTokenizer.from_pretrained(
            files.source, local_files_only=files.local, trust_remote_code=files.trust_remote_code
        )
        check_fast(tokenizer, files.name)
        return cls.of(tokenizer, find_end_ids(tokenizer, files), vocab_size, files.name)

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, end_ids: list[int], vocab_size: int, name: str) -> TextTokenizer:
        """One that is loaded already, of the model ``name``. Raises UnsupportedModelError."""
        check_fast(tokenizer, name)
        description = json.loads(tokenizer.backend_tokenizer.to_str())
        return cls(tokenizer, byte_vocab(description, end_ids, vocab_size, name), end_ids, description)

    # ---- text to tokens ---------------------------------------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        """Ordinary text in the middle of a text: nothing added, nothing parsed."""
        return self._literal.encode(text, add_special_tokens=False).ids

    def encode_prompt(self, text: str, *, special: bool = False) -> list[int]:
        """A raw prompt: with BOS and leading space if that is the model's habit, nothing parsed.

        ``special``: names of special tokens are these tokens, as vLLM has it, but a BOS in front gets no second one.
        Raises InputError if the text needs a token that the model does not have.
        """
        reader = self._parsing if special else self._prompting
        ids = self._within_model("prompt", reader.encode(text, add_special_tokens=True), text)
        twice = special and len(ids) > 1 and ids[0] == ids[1] and ids[0] in self.bos_ids()
        return ids[1:] if twice else ids

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """A request's prompt, raw text or messages, as this model is to read it. Raises InputError."""
        if prompt.text is not None:
            return self.encode_prompt(prompt.text, special=prompt.special_tokens)
        if (prompt.tools or any(turn.tool_calls for turn in prompt.messages)) and self.tool_format is None:
            problem = "has no tools" if self.has_chat_template else "is missing, and with it a place for tools"
            field = "tools" if prompt.tools else "messages.tool_calls"
            raise UnsupportedFieldError(field, None, f"the model's chat template {problem}", remedy="leave them out")
        if prompt.template_kwargs and not self.has_chat_template:
            problem = "the model has no chat template that they could be told"
            raise UnsupportedFieldError("chat_template_kwargs", None, problem, remedy="leave them out")
        return self.encode_conversation(Conversation.of(prompt))

    @functools.cached_property
    def tool_format(self) -> ToolFormat | None:
        """How the model writes calls; None: its chat template has no tools."""
        special = [self.added[token] for token in self.added if self.vocab.is_special(token)]
        return tool_format_of(self.template, special)

    @property
    def has_chat_template(self) -> bool:
        return bool(self.template)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """``encode_conversation`` of messages ({role, content}) without tools."""
        return self.encode_conversation(Conversation(messages))

    def encode_conversation(self, conversation: Conversation) -> list[int]:
        """Messages and tools through the model's chat template, up to where the answer begins.

        A model without a template gets a plain transcript of the messages. Raises InputError if the template refuses
        them, or if they need a token that the model does not have.
        """
        if not self.has_chat_template:
            return self.encode_transcript(conversation.messages)
        rendered = self.template.render(conversation, self.names)
        if not rendered.spelled:
            encoding = self._parsing.encode(rendered.text, add_special_tokens=False)
            return self._within_model("messages", encoding, rendered.text)
        tokens = self._picky.encode(rendered.text, rendered.own_names(self.names))
        for token, piece in tokens:
            self._check_within_model("messages", token, piece)
        return [token for token, _ in tokens]

    def encode_transcript(self, messages: Sequence[Message]) -> list[int]:
        """Messages as a plain transcript, up to where the answer begins. Raises InputError as ``encode_prompt``."""
        turns = "".join(f"{m['role'].capitalize()}: {m['content']}\n" for m in messages)
        return self.encode_prompt(turns + "Assistant:")

    @functools.cached_property
    def _picky(self) -> PickyParser:
        literal = Tokenizer.from_str(self._prompting.to_str())
        literal.encode_special_tokens = True
        return PickyParser(literal, self._tokenizer.added_tokens_decoder, self.encode(LEFT))

    def _within_model(self, field: str, encoding: Encoding, text: str) -> list[int]:
        """The ids, all of which the model has. Raises InputError."""
        ids = encoding.ids
        if max(ids, default=0) >= self.vocab.size:
            for token, (start, end) in zip(ids, encoding.offsets, strict=True):
                self._check_within_model(field, token, text[start:end])
        return ids

    def _check_within_model(self, field: str, token: int, piece: str) -> None:
        if token >= self.vocab.size:
            raise InputError(
                field,
                self.added.get(token, piece),
                f"is token {token} of the tokenizer, and the model has {self.vocab.size:,} tokens only",
                remedy="leave it out, or use a model that fits its tokenizer",
            )

    # ---- proof ------------------------------------------------------------------------------------------------

    def template_ids(self) -> set[int]:
        """Ids that the chat template needs, those that the model does not have included."""
        texts = self.template.conversations(answer=True)
        return {token for text in texts for token in self._parsing.encode(text, add_special_tokens=False).ids}

    def bos_ids(self) -> set[int]:
        """Ids that every raw prompt is given, likewise."""
        encoding = self._prompting.encode("x", add_special_tokens=True)
        return {token for token, added in zip(encoding.ids, encoding.special_tokens_mask, strict=True) if added}

    def literal_prompt(self, text: str) -> list[int]:
        """``encode_prompt`` without what is added and checked."""
        return self._prompting.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The tokenizer's own word on what a text is, without special tokens; it may take a space at the beginning."""
        return self._parsing.decode([token for token in ids if not self.vocab.is_special(token)])

    def self_test(self) -> list[str]:
        """What keeps this tokenizer from being exact. Empty is exact. See ``language_models/tokenizer_check.py``."""
        return [finding.problem for finding in findings(self)]

    def _written(self, texts: Iterable[str]) -> set[str]:
        """The added tokens that these texts of the template have, as far as they are names and no words or spaces."""
        encoded = (self._parsing.encode(text, add_special_tokens=False).ids for text in texts)
        return {name for ids in encoded for token in ids if _is_name(name := self.added.get(token, ""))}


def check_fast(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raises UnsupportedModelError for a tokenizer in Python, of the model ``name``."""
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise UnsupportedModelError(
            f"{name} has no fast tokenizer, so its vocabulary cannot be read as bytes",
            remedy="convert it to tokenizer.json",
        )


def _is_name(token: str) -> bool:
    """Whether an added token looks like a mark, <|user|> or [INST], and not like a word or a run of spaces."""
    marks = [c for c in token if not c.isalnum() and not c.isspace() and c != "▁"]
    return bool(marks) and any(c.isalnum() for c in token)
