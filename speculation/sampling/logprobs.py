"""Log-probabilities of a step's tokens, from the logits of the rows that they were drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Ranked(NamedTuple):
    """``chosen``: of the row's token. ``top``: the likeliest tokens, the likeliest first, with theirs."""

    chosen: float
    top: tuple[tuple[int, float], ...]


def rank_tokens(logits: Tensor, rows: Sequence[int], tokens: Sequence[int], count: int) -> list[Ranked]:
    """Of each token, which was drawn from the row of its number in ``logits`` [n, V].

    One transfer from the device; only these rows are read.
    """
    at = torch.tensor(rows, device=logits.device)
    ids = torch.tensor(tokens, device=logits.device)[:, None]
    logprobs = logits[at].float().log_softmax(-1)
    top = logprobs.topk(min(count, logprobs.shape[-1]))
    parts = (logprobs.gather(-1, ids).double(), top.values.double(), top.indices.double())
    found = torch.cat(parts, -1).tolist()
    half = 1 + top.values.shape[-1]
    return [
        Ranked(row[0], tuple((int(token), value) for token, value in zip(row[half:], row[1:half], strict=True)))
        for row in found
    ]
