"""Token id <-> bytes: what a vocabulary is once its spelling (byte-level, SentencePiece) is out of the way.

Every id is one of: an ordinary token (its bytes, possibly shared with another id), a special token (a name, no
text), or padding (neither; rows of the model's output that no tokenizer fills).

Invariants: ``token_bytes[id]`` is None exactly for special tokens and padding; end ids are special tokens.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from speculation.errors import ModelError
from speculation.frozen_map import FrozenMap

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPM_SPACE = "▁"


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's table of visible stand-ins for bytes.

    Bytes that print in Latin-1 stand for themselves; the others, in order, are U+0100, U+0101, ...
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_ALPHABET = _byte_level_alphabet()


def _from_alphabet(token: str) -> bytes:
    """Bytes of a byte-level token; one that leaves the alphabet is plain text, as in Hugging Face tokenizers."""
    values = [_ALPHABET.get(character) for character in token]
    known = [value for value in values if value is not None]
    return bytes(known) if len(known) == len(values) else token.encode()


@dataclass(frozen=True, slots=True, eq=False)
class ByteVocab:
    """A vocabulary of ``size`` ids. Compare two by ``content_hash``; ``==`` is identity.

    token_bytes: bytes of each id; None for special tokens and padding. special: id -> name.
    end_ids: ids that end a text, the primary one first. byte_fallback: ids that stand for a single raw byte beside
    the ordinary tokens (SentencePiece).

    Raises ModelError if the parts contradict each other.
    """

    token_bytes: tuple[bytes | None, ...]
    special: Mapping[int, str] = field(default_factory=FrozenMap)
    end_ids: tuple[int, ...] = ()
    byte_fallback: frozenset[int] = frozenset()
    #: hex SHA-256 of the content. Trailing padding does not count: padded sizes of one vocabulary are the same one.
    content_hash: str = field(init=False)
    #: ids that are neither text nor special
    padding_ids: tuple[int, ...] = field(init=False, repr=False)
    _ids: dict[bytes, int] = field(init=False, repr=False)
    _copies: dict[int, int] = field(init=False, repr=False)
    _lengths: dict[int, tuple[int, ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "special", FrozenMap(self.special))
        if any(not 0 <= token < self.size or self.token_bytes[token] is not None for token in self.special):
            raise ModelError("a special token has bytes or an id outside the vocabulary")
        if any(token not in self.special for token in self.end_ids) or len(set(self.end_ids)) < len(self.end_ids):
            raise ModelError(f"end ids {self.end_ids} must be different special tokens")
        unused = (token for token, data in enumerate(self.token_bytes) if data is None and token not in self.special)
        object.__setattr__(self, "padding_ids", tuple(unused))
        self._index()
        object.__setattr__(self, "content_hash", self._hash())

    def _index(self) -> None:
        ids: dict[bytes, int] = {}
        seen: dict[bytes, int] = {}
        copies: dict[int, int] = {}
        lengths: dict[int, set[int]] = {}
        fallback = self.byte_fallback
        order = [token for token in range(self.size) if token not in fallback] + sorted(fallback)
        for token in order:
            data = self.token_bytes[token]
            if data is None:
                continue
            copy = seen.get(data, 0)
            seen[data] = copy + 1
            if copy:
                copies[token] = copy
            elif data:
                ids[data] = token
                lengths.setdefault(data[0], set()).add(len(data))
        object.__setattr__(self, "_ids", ids)
        object.__setattr__(self, "_copies", copies)
        object.__setattr__(
            self, "_lengths", {first: tuple(sorted(found, reverse=True)) for first, found in lengths.items()}
        )

    def _hash(self) -> str:
        digest = hashlib.sha256()
        padding = 0  # not yet counted: it may turn out to be trailing
        for token, data in enumerate(self.token_bytes):
            name = self.special.get(token)
            if data is None and name is None:
                padding += 1
                continue
            content = data if data is not None else (name or "").encode()
            digest.update(b"p" * padding + (b"t" if data is not None else b"s") + len(content).to_bytes(4, "little"))
            digest.update(content)
            padding = 0
        digest.update(b"e" + b"".join(token.to_bytes(4, "little") for token in self.end_ids))
        return digest.hexdigest()

    @property
    def size(self) -> int:
        """Number of ids, padding included: the width of the model's output."""
        return len(self.token_bytes)

    def bytes_of(self, token: int) -> bytes:
        """The text that the token adds; nothing for special tokens and padding."""
        return self.token_bytes[token] or b""

    def text(self, tokens: Iterable[int]) -> bytes:
        """The text of a sequence of tokens."""
        return b"".join(self.token_bytes[token] or b"" for token in tokens)

    def is_special(self, token: int) -> bool:
        return token in self.special

    def copy_number(self, token: int) -> int:
        """Ids of equal bytes are numbered 0, 1, ...: ordinary tokens before byte-fallback tokens, then by id."""
        return self._copies.get(token, 0)

    def id_of(self, data: bytes) -> int | None:
        """The id of exactly these bytes (copy 0), None if there is none or no bytes."""
        return self._ids.get(data)

    def spellings(self) -> Iterable[tuple[bytes, int]]:
        """All byte strings that are a token, each with the id that ``id_of`` gives."""
        return self._ids.items()

    def longest_match(self, data: bytes, start: int) -> int | None:
        """The id of the longest token that ``data[start:]`` begins with; O(length of the longest token)."""
        if start >= len(data):
            return None
        for length in self._lengths.get(data[start], ()):
            # Near the end the slice is shorter than asked for and would match a shorter token: also right.
            token = self._ids.get(data[start : start + length])
            if token is not None:
                return token
        return None

    @classmethod
    def from_byte_level(
        cls,
        tokens: Mapping[int, str],
        *,
        added: Mapping[int, str],
        special: Iterable[int],
        end_ids: Iterable[int],
        size: int,
    ) -> ByteVocab:
        """From GPT-2 style tokens, spelled in the byte-level alphabet; ``added`` tokens are spelled as they are.

        Ids up to ``size`` that no map lists are padding; ids beyond it (a tokenizer may know more than the model
        can say) are left out.
        """
        spelled = {token: _from_alphabet(text) for token, text in tokens.items()}
        spelled |= {token: text.encode() for token, text in added.items()}
        return cls._assemble(spelled, {**tokens, **added}, special, end_ids, size, frozenset())

    @classmethod
    def from_sentencepiece(
        cls,
        tokens: Mapping[int, str],
        *,
        added: Mapping[int, str],
        special: Iterable[int],
        end_ids: Iterable[int],
        size: int,
    ) -> ByteVocab:
        """From SentencePiece tokens: U+2581 is a space (also in ``added`` tokens: user-defined runs of spaces are
        spelled so), ``<0xNN>`` a byte of the fallback. Otherwise as ``from_byte_level``.
        """
        spelled: dict[int, bytes] = {}
        fallback = set()
        for token, text in tokens.items():
            byte = _BYTE_TOKEN.fullmatch(text)
            spelled[token] = bytes.fromhex(byte[1]) if byte else text.replace(_SPM_SPACE, " ").encode()
            if byte and token not in added:
                fallback.add(token)
        spelled |= {token: text.replace(_SPM_SPACE, " ").encode() for token, text in added.items()}
        return cls._assemble(spelled, {**tokens, **added}, special, end_ids, size, frozenset(fallback))

    @classmethod
    def _assemble(
        cls,
        spelled: Mapping[int, bytes],
        names: Mapping[int, str],
        special: Iterable[int],
        end_ids: Iterable[int],
        size: int,
        fallback: frozenset[int],
    ) -> ByteVocab:
        ends = tuple(dict.fromkeys(token for token in end_ids if token < size))
        specials = {token: names.get(token, f"<{token}>") for token in (*special, *ends) if token < size}
        table: list[bytes | None] = [None] * size
        for token, data in spelled.items():
            if token < size and token not in specials:
                table[token] = data
        return cls(tuple(table), specials, ends, frozenset(t for t in fallback if t < size and t not in specials))


def intersection(a: ByteVocab, b: ByteVocab) -> tuple[tuple[int, int], ...]:
    """Pairs (id in ``a``, id in ``b``) of equal non-empty bytes, copies 0 only, ascending in the id of ``a``."""
    pairs = ((token, b.id_of(data)) for data, token in a.spellings())
    return tuple(sorted((token, other) for token, other in pairs if other is not None))
