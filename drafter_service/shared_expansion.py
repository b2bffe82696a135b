"""Several sessions' drafts in one pass of the model: on a GPU a pass costs the same for one row or for many.

What goes wrong in a session costs only that session its drafts.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch

from drafter_service.draft_model import JoinsPasses
from drafter_service.draft_source import Answer, Expansion
from drafter_service.model_draft_source import ModelDraftSource, RowsRun, choices_after
from language_models.continuation import Continuation

log = logging.getLogger(__name__)


class _Joining(NamedTuple):
    """Of the expansion with that number."""

    number: int
    source: ModelDraftSource
    coming: Continuation


def expand_together(expansions: Sequence[Expansion]) -> list[Answer]:
    """Of each what ``source.expand`` gives, or raises; sources of one model that joins passes run theirs in one."""
    if len(expansions) == 1:
        return [expansions[0].alone()]
    begun = [_begin(number, expansion) for number, expansion in enumerate(expansions)]
    answers = {number: one for number, one in enumerate(begun) if not isinstance(one, _Joining)}
    for kind in (True, False):
        alike = [one for one in begun if isinstance(one, _Joining) and one.source.is_ranked_by_rows == kind]
        answers |= _in_one_pass(alike, expansions) if alike else {}
    return [answers[number] for number in range(len(expansions))]


def _begin(number: int, expansion: Expansion) -> _Joining | Answer:
    """As far as the pass, or all of it by itself."""
    source = expansion.source
    if not (isinstance(source, ModelDraftSource) and source.joins_passes):
        return expansion.alone()
    try:
        coming = source.continuation(expansion.paths)
    except Exception as error:
        return error
    return expansion.alone() if coming is None else _Joining(number, source, coming)


@torch.inference_mode()
def _in_one_pass(joining: Sequence[_Joining], expansions: Sequence[Expansion]) -> dict[int, Answer]:
    model = joining[0].source.model
    assert isinstance(model, JoinsPasses)
    logits = None
    try:
        logits = model.forward_all([one.coming for one in joining])
    except Exception:
        log.debug("a pass of %d sessions failed; each runs alone", len(joining), exc_info=True)
    if logits is None:  # one of them has no KV memory, say: each alone tells which
        return {one.number: expansions[one.number].alone() for one in joining}
    runs = []
    for one, rows in zip(joining, logits, strict=True):
        asked = expansions[one.number]
        one.source.was_run(asked.paths)
        runs.append(RowsRun(one.source, asked.paths, zero_width=asked.zero_width, logits=rows))
    counts = [expansions[one.number].choices for one in joining]
    return dict(zip((one.number for one in joining), _drawn(runs, counts), strict=True))


def _drawn(runs: Sequence[RowsRun], counts: Sequence[int]) -> list[Answer]:
    """Together where one ranking serves all; what fails so, or takes each row by itself, session by session."""
    if runs[0].source.is_ranked_by_rows:
        try:
            found = choices_after(runs, max(counts))
            return [[row[:count] for row in rows] for rows, count in zip(found, counts, strict=True)]
        except Exception:
            log.debug("the draws of %d sessions failed; each is drawn alone", len(runs), exc_info=True)
    return [_drawn_alone(run, count) for run, count in zip(runs, counts, strict=True)]


def _drawn_alone(run: RowsRun, count: int) -> Answer:
    try:
        return choices_after([run], count)[0]
    except Exception as error:
        return error
