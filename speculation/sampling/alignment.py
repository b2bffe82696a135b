"""Which tokens a drafter and a target have in common, for the rules that draft in the target's tokens.

With one vocabulary (equal content; padded sizes count as equal) every token is itself. Else tokens are common by their
bytes, however each tokenizer spells them: a newline, a space or a byte is the same in every kind. Each drafter token
means at most one target token, the one that ``ByteVocab.id_of`` names (ordinary before byte-fallback, then the lowest
id); several drafter tokens may mean the same one, whose probability is then the sum of theirs. A text's end is common,
other special tokens are not. Any such map is lossless: it only shapes q (see ``verification/rejection.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from speculation.text.byte_vocab import ByteVocab


class Alignment:
    """``target_ids``: int64 [drafter's vocabulary size], the target id that each drafter token means, -1 for none."""

    def __init__(self, drafter: ByteVocab, target: ByteVocab) -> None:
        self.target = target
        self.same = drafter.content_hash == target.content_hash
        own = range(drafter.size)
        meanings = own if self.same else [_meaning(token, drafter, target) for token in own]
        self.target_ids = torch.tensor([token if token < target.size else -1 for token in meanings], dtype=torch.int64)
        if self.same:
            self.target_ids[list(drafter.padding_ids)] = -1
        self._drafter_ids: dict[int, int] = {}
        for token, meaning in enumerate(self.target_ids.tolist()):
            if meaning >= 0:
                self._drafter_ids.setdefault(meaning, token)

    @property
    def common(self) -> int:
        """Target tokens that the drafter can draft."""
        return len(self._drafter_ids)

    def masked(self, logits: Tensor) -> Tensor:
        """``logits`` [drafter's size] with all tokens out of reach that mean nothing to the target."""
        return logits.masked_fill(self.target_ids.to(logits.device) < 0, -torch.inf)

    def drafter_id(self, target_id: int) -> int:
        """The lowest drafter token that means this target token."""
        return self._drafter_ids[target_id]

    def in_target_ids(self, q: Iterable[tuple[int, float]]) -> Mapping[int, float]:
        """Drafter id -> probability as target id -> probability."""
        found: dict[int, float] = {}
        for token, share in q:
            meaning = int(self.target_ids[token])
            if meaning >= 0:
                found[meaning] = found.get(meaning, 0.0) + share
        return found


def _meaning(token: int, drafter: ByteVocab, target: ByteVocab) -> int:
    if token in drafter.end_ids:
        return target.end_ids[0] if target.end_ids else -1
    meaning = target.id_of(drafter.bytes_of(token))
    return -1 if meaning is None else meaning
