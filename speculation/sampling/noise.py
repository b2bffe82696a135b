"""The keyed Gumbel race: noise that two models with different vocabularies share without exchanging anything.

A token v is drawn as argmax_v( log p(v) + G_v ) with independent standard Gumbel variates G_v: an exact sample of p
(Gumbel 1954; Maddison et al. 2014). G is a function of (seed, byte offset, tokens already committed there without
adding bytes, stream, the token's bytes, copy number), so equal bytes get equal noise in every vocabulary, and two
models that draw with the same seed tend to draw the same text (Daliri et al. 2024, drafter-invariant coupling).

The definition is part of the protocol; changing it makes old and new peers disagree (they stay correct, but drafts
are rejected more often). All of it up to the 52 random bits is integer arithmetic, the same on every device:

    token key     k    = blake2b-64( namespace, copy number, bytes or name )
    position key  a, b = two words of blake2b-128( seed, offset, zero_width, stream )
    bits          r    = mix( mix(k xor a) xor b ), 64 bits, mix = the finaliser of splitmix64 (Steele et al. 2014)
    noise         u    = (top 52 bits of r + 1/2) / 2^52, inside (0, 1) and exact in float64
                  G    = -log(-log u)

Integers are little-endian. 52 bits, not 53, because adding the half must not round: u = 1 would make G infinite.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter

from speculation.text.byte_vocab import ByteVocab

RACE_STREAM = "race"

_ORDINARY, _SPECIAL, _END, _PADDING = b"t", b"s", b"e", b"p"
_WORD = 2**64 - 1
#: Factors of the mix.
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB
#: Random bits of one draw.
BITS = 52


def token_keys(vocab: ByteVocab) -> list[int]:
    """The key of every id, unsigned 64 bits.

    End ids share one key across all vocabularies (further end ids are its copies 1, 2, ...), other special tokens
    are known by name, and padding by id.
    """
    ends = {token: copy for copy, token in enumerate(vocab.end_ids)}
    names: Counter[str] = Counter()
    keys = []
    for token, data in enumerate(vocab.token_bytes):
        if data is not None:
            key = _token_key(_ORDINARY, vocab.copy_number(token), data)
        elif token in ends:
            key = _token_key(_END, ends[token], b"")
        elif token in vocab.special:
            name = vocab.special[token]
            key = _token_key(_SPECIAL, names[name], name.encode())
            names[name] += 1
        else:
            key = _token_key(_PADDING, token, b"")
        keys.append(key)
    return keys


def _token_key(namespace: bytes, copy: int, content: bytes) -> int:
    message = namespace + copy.to_bytes(8, "little") + content
    return int.from_bytes(hashlib.blake2b(message, digest_size=8, person=b"dragoman token").digest(), "little")


def position_key(seed: int, offset: int, zero_width: int, stream: str) -> tuple[int, int]:
    """The two words a, b of a place in the text."""
    message = b"".join(number.to_bytes(8, "little") for number in (seed, offset, zero_width)) + stream.encode()
    digest = hashlib.blake2b(message, digest_size=16, person=b"dragoman place").digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def drafter_seed(seed: int) -> int:
    """The seed of a drafter's own draws, from which the target's cannot be told.

    For rules under which drafter and target draw independently: who knew the target's seed would know what it accepts.
    As secret as the client's seed: small ones can be tried one by one.
    """
    digest = hashlib.blake2b(seed.to_bytes(8, "little"), digest_size=8, person=b"dragoman draft").digest()
    return int.from_bytes(digest, "little")


def next_place(offset: int, zero_width: int, token_bytes: bytes) -> tuple[int, int]:
    """The place behind a token: its offset, and how many tokens stand there that add no bytes."""
    return offset + len(token_bytes), 0 if token_bytes else zero_width + 1


def reference_bits(token_key: int, position: tuple[int, int]) -> int:
    """The 52 random bits of one token at one place, in plain integers. Slow: for tests and other implementations."""
    a, b = position
    return _mix(_mix(token_key ^ a) ^ b) >> (64 - BITS)


def _mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * MIX_1) & _WORD
    z = ((z ^ (z >> 27)) * MIX_2) & _WORD
    return z ^ (z >> 31)


def reference_gumbel(token_key: int, position: tuple[int, int]) -> float:
    """The noise of one token at one place."""
    return -math.log(-math.log((reference_bits(token_key, position) + 0.5) * 2.0**-BITS))


def place_bits(seed: int, offset: int, zero_width: int, stream: str) -> int:
    """52 random bits of a place as a whole, for draws that are not about one token."""
    return reference_bits(0, position_key(seed, offset, zero_width, stream))


def place_uniform(seed: int, offset: int, zero_width: int, stream: str) -> float:
    """The same as a number inside (0, 1), exact in float64."""
    return (place_bits(seed, offset, zero_width, stream) + 0.5) * 2.0**-BITS
