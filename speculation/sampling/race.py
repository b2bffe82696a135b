"""The noise of the race for a whole vocabulary at once, as tensors; ``speculation/sampling/noise.py`` defines it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from speculation.sampling.noise import BITS, MIX_1, MIX_2, RACE_STREAM, position_key, token_keys
from speculation.text.byte_vocab import ByteVocab


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word


def _shift_right(z: Tensor, by: int) -> Tensor:
    """Logical shift of int64: torch shifts arithmetically."""
    return (z >> by).bitwise_and_((1 << (64 - by)) - 1)


def _mix_(z: Tensor) -> Tensor:
    """In place; int64 products wrap around."""
    z.bitwise_xor_(_shift_right(z, 30)).mul_(_signed(MIX_1))
    z.bitwise_xor_(_shift_right(z, 27)).mul_(_signed(MIX_2))
    return z.bitwise_xor_(_shift_right(z, 31))


def sent_to(device: torch.device, values: Sequence[Any], dtype: torch.dtype = torch.int64) -> Tensor:
    """Numbers, or rows of them, as a tensor on the device.

    Does not wait for the device to be done with what it was given before, which ``torch.tensor(..., device=...)`` does.
    """
    return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)


class RaceNoise:
    """The noise of one vocabulary. Immutable; one serves any number of sessions.

    ``device``: where the noise is made. Devices without float64 (Apple's) get theirs from the CPU.
    """

    def __init__(self, vocab: ByteVocab, *, device: str | torch.device = "cpu") -> None:
        asked = torch.device(device)
        self.device = torch.device("cpu") if asked.type == "mps" else asked
        self._keys = torch.tensor([_signed(key) for key in token_keys(vocab)], dtype=torch.int64, device=self.device)

    def bits(
        self, seed: int, offset: int, zero_width: int, *, stream: str = RACE_STREAM, ids: Tensor | None = None
    ) -> Tensor:
        """The 52 random bits: int64 [len(ids)], or [vocabulary size] without ``ids``."""
        a, b = position_key(seed, offset, zero_width, stream)
        keys = self._keys if ids is None else self._keys[ids]
        z = _mix_(keys ^ _signed(a)).bitwise_xor_(_signed(b))
        return _shift_right(_mix_(z), 64 - BITS)

    def gumbel_rows(self, places: Sequence[tuple[int, int, int, str]]) -> Tensor:
        """``gumbel`` over the vocabulary for several (seed, offset, zero_width, stream): float64 [places, size]."""
        words = [[_signed(word) for word in position_key(*place)] for place in places]
        a, b = sent_to(self.device, words).split(1, dim=1)
        z = _mix_(self._keys ^ a).bitwise_xor_(b)
        return _gumbel_of(_shift_right(_mix_(z), 64 - BITS))

    def gumbel(
        self, seed: int, offset: int, zero_width: int, *, stream: str = RACE_STREAM, ids: Tensor | None = None
    ) -> Tensor:
        """Standard Gumbel variates: float64 [len(ids)], or [vocabulary size] without ``ids``.

        seed: unsigned 64 bits. offset: bytes of text before this place. zero_width: tokens committed at this offset
        that added no bytes. stream: uses with different streams get independent noise.
        """
        return _gumbel_of(self.bits(seed, offset, zero_width, stream=stream, ids=ids))


def _gumbel_of(bits: Tensor) -> Tensor:
    return bits.double().add_(0.5).mul_(2.0**-BITS).log_().neg_().log_().neg_()
