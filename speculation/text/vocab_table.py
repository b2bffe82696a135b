"""A vocabulary as bytes, to be sent to a peer that does not have it.

The content hash is the name of a vocabulary and the check of its table: what was read back must have the hash that
was asked for. Layout, all of it deflated: number of ids, then for each id a kind (p padding, t text, f byte-fallback
text, s special) and, but for padding, the length of its bytes or name and these; then the number of end ids, and them.
Numbers are unsigned 32 bits, little-endian.
"""

from __future__ import annotations

import struct
import zlib

from speculation.errors import DragomanError, ProtocolError
from speculation.text.byte_vocab import ByteVocab

#: Bytes that a table may take, deflated and not: several times those of the largest vocabulary known.
MAX_TABLE_BYTES = 32 << 20
MAX_INFLATED_BYTES = 128 << 20


def table_of(vocab: ByteVocab) -> bytes:
    """The table; ``vocab_of_table`` reads it."""
    parts = [struct.pack("<I", vocab.size)]
    for token, data in enumerate(vocab.token_bytes):
        if data is None and token not in vocab.special:
            parts.append(b"p")
            continue
        kind = b"s" if data is None else b"f" if token in vocab.byte_fallback else b"t"
        content = vocab.special[token].encode() if data is None else data
        parts.append(kind + struct.pack("<I", len(content)) + content)
    parts.append(struct.pack(f"<I{len(vocab.end_ids)}I", len(vocab.end_ids), *vocab.end_ids))
    return zlib.compress(b"".join(parts), 6)


def vocab_of_table(table: bytes, *, content_hash: str) -> ByteVocab:
    """Raises ProtocolError unless this is the table of the vocabulary of that hash."""
    try:
        vocab = _read(_inflated(table))
    except (zlib.error, struct.error, UnicodeDecodeError, DragomanError) as error:
        raise ProtocolError(f"a vocabulary's table that cannot be read: {error}") from error
    if vocab.content_hash != content_hash:
        raise ProtocolError(f"the table of vocabulary {vocab.content_hash[:12]} in place of {content_hash[:12]}")
    return vocab


def _inflated(table: bytes) -> memoryview:
    inflater = zlib.decompressobj()
    data = inflater.decompress(table, MAX_INFLATED_BYTES)
    if inflater.unconsumed_tail or not inflater.eof:
        raise ProtocolError("it is cut, or larger than any vocabulary")
    return memoryview(data)


def _read(data: memoryview) -> ByteVocab:
    at = 0

    def number() -> int:
        nonlocal at
        [value] = struct.unpack_from("<I", data, at)
        at += 4
        return int(value)

    tokens: list[bytes | None] = []
    special: dict[int, str] = {}
    fallback: set[int] = set()
    for token in range(number()):
        kind = bytes(data[at : at + 1])
        at += 1
        content: bytes | None = None
        if kind != b"p":
            length = number()
            content = bytes(data[at : at + length])
            at += length
        match kind:
            case b"p" | b"t":
                pass
            case b"f":
                fallback.add(token)
            case b"s":
                special[token], content = (content or b"").decode(), None
            case _:
                raise ProtocolError(f"unknown kind {kind!r} of token {token}")
        tokens.append(content)
    ends = tuple(number() for _ in range(number()))
    return ByteVocab(token_bytes=tuple(tokens), special=special, end_ids=ends, byte_fallback=frozenset(fallback))
