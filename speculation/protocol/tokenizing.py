"""What a target tells of its tokens, as plain values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from speculation.errors import InputError
from speculation.text.byte_vocab import ByteVocab


@dataclass(frozen=True, slots=True)
class TokenPiece:
    """What a token stands for: the bytes that it adds to a text, or the name of a special token. Padding is neither."""

    text: bytes = b""
    special: str = ""

    @property
    def shown(self) -> str:
        """For people: half a character is a replacement character."""
        return self.special or self.text.decode(errors="replace")


def pieces_of(vocab: ByteVocab, token_ids: Sequence[int]) -> tuple[TokenPiece, ...]:
    """One for each token. Raises InputError for an id that the vocabulary does not have."""
    for token in token_ids:
        if not 0 <= token < vocab.size:
            remedy = f"ids are 0..{vocab.size - 1}"
            raise InputError("token_ids", token, "is no token of the model", remedy=remedy)
    return tuple(TokenPiece(vocab.bytes_of(token), vocab.special.get(token, "")) for token in token_ids)


def text_of(pieces: Iterable[TokenPiece]) -> bytes:
    """The text that the tokens add, without the names of special ones."""
    return b"".join(piece.text for piece in pieces)


def named_text_of(pieces: Iterable[TokenPiece]) -> bytes:
    """The same with the names of special tokens."""
    return b"".join(piece.special.encode() or piece.text for piece in pieces)
