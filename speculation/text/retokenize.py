"""Draft bytes -> candidate target ids that may follow the committed ids.

Candidates should be what the target is likely to say after its committed ids, so the tokenizer is asked first; but
whatever the tokenizer does (normalise, merge across the committed end, spell a special token), the result obeys:

  * its bytes are a prefix of the draft, exactly; it holds no special tokens, and at most ``limit`` ids;
  * an unfinished character at the draft's end waits; one that the committed text left unfinished is finished;
  * the work is O(tail + draft), the draft being cut to what ``limit`` tokens can need.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence

from speculation.text.byte_vocab import ByteVocab

Encode = Callable[[str], list[int]]

#: Bytes of draft looked at for each token asked for. Few tokens are longer; a longer one is only cut in two.
BYTES_PER_TOKEN = 32


def complete_utf8_prefix(data: bytes) -> int:
    """Length of the longest prefix of ``data`` that does not end inside a UTF-8 character.

    Bytes that can never become a character count as complete: only what is still possible waits. O(1).
    """
    for back in range(1, min(3, len(data)) + 1):
        if data[-back] & 0xC0 != 0x80:  # not a continuation byte: the last character starts here
            start = len(data) - back
            if data[start] == 0xED and data[start + 1 : start + 2] >= b"\xa0":
                return len(data)  # a surrogate, which UTF-8 does not have; Python's decoder would wait for more
            return start + codecs.utf_8_decode(data[start:], "replace", False)[1]
    return len(data)


def retokenize(draft: bytes, tail_ids: Sequence[int], vocab: ByteVocab, encode: Encode, *, limit: int) -> list[int]:
    """Ids of ``vocab`` that spell a prefix of ``draft`` and may follow ``tail_ids``, the last few committed ids.

    ``encode`` turns text into ids, special-token parsing off. Never raises for any draft.
    """
    return retokenize_after(open_tail(tail_ids, vocab), draft, vocab, encode, limit=limit)


def retokenize_after(tail: bytes, draft: bytes, vocab: ByteVocab, encode: Encode, *, limit: int) -> list[int]:
    """The same after the ``open_tail`` of the committed ids: for several drafts of one step."""
    if limit <= 0:
        return []
    draft = draft[: limit * BYTES_PER_TOKEN]
    draft = draft[: max(0, complete_utf8_prefix(tail + draft) - len(tail))]
    if not draft:
        return []
    ids = _spelled_by(encode, tail, draft, vocab) if tail else None
    if ids is None:
        # Merged across the committed end, or not spelled exactly: from the boundary on, on its own.
        head = _bytes_that_finish(tail, draft)
        ids = _walk(draft[:head], vocab, limit)
        if sum(len(vocab.bytes_of(token)) for token in ids) == head:
            rest = draft[head:]
            own = _spelled_by(encode, b"", rest, vocab)
            ids += _walk(rest, vocab, limit) if own is None else own
    return ids[:limit]


def open_tail(tail_ids: Sequence[int], vocab: ByteVocab) -> bytes:
    """The committed text that new text could merge with: after the last token without text, from where it is UTF-8."""
    pieces: list[bytes] = []
    for token in reversed(tail_ids):
        data = vocab.bytes_of(token)
        if not data:
            break
        pieces.append(data)
    pieces.reverse()
    for start in range(len(pieces)):
        tail = b"".join(pieces[start:])
        if _decoded(tail[: complete_utf8_prefix(tail)]) is not None:
            return tail
    return b""


def _spelled_by(encode: Encode, tail: bytes, draft: bytes, vocab: ByteVocab) -> list[int] | None:
    """The last tokens of encode(tail + draft) that spell exactly ``draft``, if there are such tokens.

    What the tokenizer did before them (a leading space of its own, say) does not matter: only the draft's ids count.
    """
    text = _decoded(tail + draft)
    if text is None:
        return None
    ids = encode(text)
    missing, start = len(draft), len(ids)
    while missing > 0 and start > 0:
        start -= 1
        token = ids[start]
        data = vocab.bytes_of(token) if 0 <= token < vocab.size else b""
        if not data or not draft.endswith(data, 0, missing):
            return None
        missing -= len(data)
    return ids[start:] if missing == 0 else None


def _bytes_that_finish(tail: bytes, draft: bytes) -> int:
    """How many bytes of ``draft`` finish the character that ``tail`` leaves unfinished."""
    whole = complete_utf8_prefix(tail)
    unfinished = len(tail) - whole
    if not unfinished:
        return 0
    for length in range(1, min(3, len(draft)) + 1):
        if _decoded(tail[whole:] + draft[:length]) is not None:
            return length
    return 0


def _walk(data: bytes, vocab: ByteVocab, limit: int) -> list[int]:
    """The longest token that fits, again and again: byte exact, up to where no token fits."""
    ids: list[int] = []
    at = 0
    while at < len(data) and len(ids) < limit:
        token = vocab.longest_match(data, at)
        if token is None:
            break
        ids.append(token)
        at += len(vocab.bytes_of(token))
    return ids


def _decoded(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
