"""Generated text with a rolling digest at every byte offset.

Spans and verdicts name the text they follow by ``(offset, digest)`` instead of by an epoch: a message is
either about the text that stands, or stale. The digest is a polynomial hash modulo the Mersenne prime
2^61 - 1 (Karp and Rabin 1987), so that appending n bytes costs O(n) wherever the text is. It is not
cryptographic and need not be: a collision can waste a draft, never change the text.

Invariant: ``len(text.digests) == len(text) + 1`` and ``digests[o]`` is the digest of the first o bytes.
"""

from __future__ import annotations

from array import array

MODULUS = (1 << 61) - 1
MULTIPLIER = 0x1D2B_7C4E_90A3_6F15 % MODULUS
#: Digest of the empty text. Not zero, so that leading NUL bytes count.
EMPTY_DIGEST = 1


def extend_digest(digest: int, data: bytes) -> int:
    """Digest of a text whose first part has ``digest`` and whose rest is ``data``."""
    for byte in data:
        digest = (digest * MULTIPLIER + byte + 1) % MODULUS
    return digest


class DigestedText:
    """An append-only text that knows the digest of each of its prefixes (8 bytes of memory a byte)."""

    __slots__ = ("_data", "_digests")

    def __init__(self, data: bytes = b"") -> None:
        self._data = bytearray()
        self._digests = array("Q", [EMPTY_DIGEST])
        self.append(data)

    def append(self, data: bytes) -> None:
        digest = self._digests[-1]
        for byte in data:
            digest = (digest * MULTIPLIER + byte + 1) % MODULUS
            self._digests.append(digest)
        self._data += data

    def __len__(self) -> int:
        return len(self._data)

    def since(self, offset: int) -> bytes:
        """The text from ``offset`` on."""
        return bytes(self._data[offset:])

    @property
    def digest(self) -> int:
        """Digest of the whole text."""
        return self._digests[-1]

    def digest_at(self, offset: int) -> int:
        """Digest of the first ``offset`` bytes; raises IndexError beyond the end."""
        if not 0 <= offset <= len(self._data):
            raise IndexError(offset)
        return self._digests[offset]
