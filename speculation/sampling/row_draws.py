"""The draws of all rows of a step at once, on the device: one transfer brings integers, not logits.

For sessions with plain settings: greedy, or a temperature. A row's place in the text is known before the pass, for it
follows from the tokens on its way, so every row can be drawn whether or not the row before it agrees. The numbers are
the ones that ``TokenSampler.draw`` gives, to the last bit: the same operations on the same values, row by row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from speculation.sampling.params import SamplingParams
from speculation.sampling.race import RaceNoise
from speculation.sampling.warpers import temper

#: Rows that are drawn together: noise of a large vocabulary takes some megabytes a row.
AT_ONCE = 64


class Draw(NamedTuple):
    """``top``: the row's highest score, which is a number if the logits are usable."""

    token: int
    top: float


@dataclass(frozen=True, slots=True)
class RowsToDraw:
    """Of one session: its settings and noise stream, and (offset, zero_width) of every row."""

    params: SamplingParams
    stream: str
    places: tuple[tuple[int, int], ...]


def is_plain(params: SamplingParams) -> bool:
    """Whether a draw needs nothing but logits, temperature and place."""
    neutral = SamplingParams(temperature=params.temperature, seed=params.seed)
    return params == neutral


def draw_rows(
    logits: Sequence[Tensor], wanted: Sequence[RowsToDraw], noise: RaceNoise, padding: Tensor
) -> list[list[Draw]]:
    """``logits``: [rows, V] float32 of each session. ``padding``: ids that are never drawn, on the noise's device."""
    scores = torch.cat([rows.float() for rows in logits]).to(noise.device)
    if padding.numel():
        scores = scores.index_fill(1, padding, -torch.inf)
    tops, best = scores.max(-1)
    sampled: dict[float, list[tuple[int, int, int, int, str]]] = defaultdict(list)
    row = 0
    for rows in wanted:
        for offset, zero_width in rows.places:
            if not rows.params.greedy:
                sampled[rows.params.temperature].append((row, rows.params.seed, offset, zero_width, rows.stream))
            row += 1
    for temperature, places in sampled.items():
        for start in range(0, len(places), AT_ONCE):
            part = places[start : start + AT_ONCE]
            at = torch.tensor([place[0] for place in part], device=scores.device)
            log_p = temper(scores[at], tops[at, None], temperature).log_softmax(-1)
            best[at] = (log_p + noise.gumbel_rows([place[1:] for place in part])).argmax(-1)
    tokens, highest = torch.stack((best.double(), tops.double())).tolist()
    drawn = iter([Draw(int(token), top) for token, top in zip(tokens, highest, strict=True)])
    return [[next(drawn) for _ in rows.places] for rows in wanted]
