"""The draws of all rows of a step at once, on the device: one transfer brings integers, not logits.

A row's place in the text, and what was generated before it, are known before the pass, for they follow from the tokens
on its way; so every row can be drawn whether or not the row before it agrees. The numbers are the ones that
``TokenSampler.draw`` gives: the same operations on the same values, row by row, and no sum over a row but that of a cut
by top-p, in float64.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from speculation.sampling.mask import allowed_rows
from speculation.sampling.on_its_way import OnItsWay
from speculation.sampling.params import SamplingParams
from speculation.sampling.race import RaceNoise, sent_to
from speculation.sampling.warpers import guess_rows, penalise_rows, warp_rows

#: Rows that are drawn together: noise of a large vocabulary takes some megabytes a row.
AT_ONCE = 64


class Draw(NamedTuple):
    """``top``: the row's highest score, which is a number if the logits are usable."""

    token: int
    top: float


@dataclass(frozen=True, slots=True)
class RowsToDraw:
    """Of one session: its settings but for the seed, seed and noise stream, and (offset, zero_width) of every row.

    Where it matters, ``counts``: how often each token was generated before the step; ``paths``: the tokens of the step
    before each row; ``prompt_ids``: int64 ids that the prompt holds, without repeats. ``masks``: of a guide, for each
    row; empty: all tokens are allowed.
    """

    settings: SamplingParams
    seed: int
    stream: str
    places: tuple[tuple[int, int], ...]
    counts: Mapping[int, int]
    paths: tuple[tuple[int, ...], ...] = ()
    prompt_ids: Tensor | None = None
    masks: tuple[bytes, ...] = ()


class LaunchedDraws:
    """Draws that the device makes, or has made. ``found``: [3, rows], tokens, highest scores, and whether the token is
    certain; ``rows``: of each session. ``certain``: makes those of some sessions, by their numbers, without guessing.
    """

    def __init__(self, found: Tensor, rows: Sequence[int], certain: Callable[[Sequence[int]], Tensor]) -> None:
        self._found = OnItsWay(found)
        self._rows = rows
        self._certain = certain

    def read(self) -> list[list[Draw]]:
        """Of each session, as soon as the device is done; other threads may run until then."""
        drawn, guessed = _of_sessions(self._found.read(), self._rows)
        if guessed:
            again, _ = _of_sessions(self._certain(guessed), [self._rows[number] for number in guessed])
            for number, draws in zip(guessed, again, strict=True):
                drawn[number] = draws
        return drawn


def _of_sessions(found: Tensor, rows: Sequence[int]) -> tuple[list[list[Draw]], list[int]]:
    """The draws of each session, and the numbers of those with one that is not certain."""
    drawn: list[list[Draw]] = []
    guessed: list[int] = []
    columns = zip(*found.tolist(), strict=True)
    for number, count in enumerate(rows):
        of_session = list(itertools.islice(columns, count))
        drawn.append([Draw(int(token), top) for token, top, _ in of_session])
        if not all(sure for _, _, sure in of_session):
            guessed.append(number)
    return drawn, guessed


def draw_rows(
    logits: Sequence[Tensor], wanted: Sequence[RowsToDraw], noise: RaceNoise, padding: Tensor
) -> LaunchedDraws:
    """Has the rows drawn, without waiting for a device that works by itself.

    ``logits``: [rows, V] float32 of each session, which stand until the draws were read. ``padding``: ids that are
    never drawn, on the noise's device.
    """

    def certain(numbers: Sequence[int]) -> Tensor:
        chosen = [logits[number] for number in numbers], [wanted[number] for number in numbers]
        return _drawn(*chosen, noise, padding, _warp_surely)

    rows = [len(rows.places) for rows in wanted]
    return LaunchedDraws(_drawn(logits, wanted, noise, padding, guess_rows), rows, certain)


_Warp = Callable[[Tensor, Tensor, SamplingParams], tuple[Tensor, Tensor]]


def _warp_surely(scores: Tensor, tops: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    return warp_rows(scores, tops, params), torch.ones(scores.shape[0], dtype=torch.bool, device=scores.device)


def _drawn(
    logits: Sequence[Tensor], wanted: Sequence[RowsToDraw], noise: RaceNoise, padding: Tensor, warp: _Warp
) -> Tensor:
    """[3, rows] float64: see ``LaunchedDraws``."""
    scores = _penalised(logits, wanted, noise, padding)
    tops, best = scores.max(-1)
    sure = torch.ones_like(best)
    for at, race, certain in _races(scores, tops, wanted, noise, warp=warp):
        best[at] = race.argmax(-1)
        sure[at] = certain.long()
    return torch.stack((best.double(), tops.double(), sure.double()))


def rank_rows(
    logits: Sequence[Tensor], wanted: Sequence[RowsToDraw], noise: RaceNoise, padding: Tensor, count: int
) -> list[list[list[tuple[int, float]]]]:
    """Of each session's rows what is drawn, then those that would be drawn without it; at most ``count`` possible
    tokens, with their probabilities before all settings. ``logits``: as of ``draw_rows``."""
    scores = _penalised(logits, wanted, noise, padding)
    tops, best = scores.max(-1)
    ranked = scores
    for at, race, _ in _races(scores, tops, wanted, noise, warp=_warp_surely):
        ranked = ranked.double() if ranked is scores else ranked
        ranked[at] = race
    if count > 1:
        values, ids = ranked.topk(min(count, ranked.shape[-1]))
    else:  # where scores are equal the one that ``draw_rows`` takes
        values, ids = (tops[:, None], best[:, None]) if ranked is scores else ranked.max(-1, keepdim=True)
    plain = torch.cat([rows.float() for rows in logits]).to(noise.device)
    shares = plain.softmax(-1).gather(-1, ids)
    found = iter(torch.stack((ids.double(), values, shares.double()), -1).tolist())
    return [
        [
            [(int(token), share) for token, value, share in row if value > -math.inf]
            for row in itertools.islice(found, len(rows.places))
        ]
        for rows in wanted
    ]


def _penalised(logits: Sequence[Tensor], wanted: Sequence[RowsToDraw], noise: RaceNoise, padding: Tensor) -> Tensor:
    """Of all rows, before temperature: [rows, V] float32."""
    scores = torch.cat([rows.float() for rows in logits]).to(noise.device)
    if padding.numel():
        scores = scores.index_fill(1, padding, -torch.inf)
    first = 0
    for rows in wanted:
        last = first + len(rows.places)
        _penalise(scores[first:last], rows)
        first = last
    return scores


def _races(
    scores: Tensor, tops: Tensor, wanted: Sequence[RowsToDraw], noise: RaceNoise, *, warp: _Warp
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(rows, their race [rows, V] float64, of which it is certain) of all that are not greedy, those of equal settings
    together."""
    alike: dict[SamplingParams, list[tuple[int, tuple[int, int, int, str]]]] = defaultdict(list)
    first = 0
    for rows in wanted:
        last = first + len(rows.places)
        if not rows.settings.greedy:
            places = [(rows.seed, *place, rows.stream) for place in rows.places]
            alike[rows.settings] += zip(range(first, last), places, strict=True)
        first = last
    for settings, placed in alike.items():
        for start in range(0, len(placed), AT_ONCE):
            part = placed[start : start + AT_ONCE]
            at = sent_to(scores.device, [row for row, _ in part])
            warped, sure = warp(scores[at], tops[at, None], settings)
            yield at, warped + noise.gumbel_rows([place for _, place in part]), sure


def _penalise(scores: Tensor, rows: RowsToDraw) -> None:
    """One session's scores [n, V], in place."""
    settings, counts = rows.settings, None
    if rows.masks:
        scores.masked_fill_(~allowed_rows(rows.masks, scores.shape[-1], scores.device), -torch.inf)
    if rows.paths:
        counts = torch.zeros_like(scores)
        seen = sent_to(scores.device, list(rows.counts))
        counts[:, seen] = sent_to(scores.device, list(rows.counts.values()), torch.float32)
        steps = [(row, token) for row, path in enumerate(rows.paths) for token in path]
        at, ids = sent_to(scores.device, steps).view(-1, 2).unbind(1)
        counts.index_put_((at, ids), torch.ones(len(steps), device=scores.device), accumulate=True)
    if settings.logit_bias or counts is not None:
        scores.copy_(penalise_rows(scores, settings, prompt_ids=rows.prompt_ids, counts=counts))
