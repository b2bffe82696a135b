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
    answers: dict[int, Answer] = {}
    joining: list[_Joining] = []
    for number, expansion in enumerate(expansions):
        source = expansion.source
        if len(expansions) == 1 or not (isinstance(source, ModelDraftSource) and source.joins_passes):
            answers[number] = expansion.alone()
            continue
        try:
            coming = source.continuation(expansion.paths)
        except Exception as error:
            answers[number] = error
            continue
        if coming is None:
            answers[number] = expansion.alone()
        else:
            joining.append(_Joining(number, source, coming))
    for kind in (True, False):
        alike = [one for one in joining if one.source.is_ranked_by_rows == kind]
        answers |= _in_one_pass(alike, expansions) if alike else {}
    return [answers[number] for number in range(len(expansions))]


@torch.inference_mode()
def _in_one_pass(joining: Sequence[_Joining], expansions: Sequence[Expansion]) -> dict[int, Answer]:
    model = joining[0].source.model
    assert isinstance(model, JoinsPasses)
    try:
        logits = model.forward_all([one.coming for one in joining])
    except Exception:  # one of them has no KV memory, say: each alone tells which
        log.debug("a pass of %d sessions failed; each runs alone", len(joining), exc_info=True)
        return {one.number: expansions[one.number].alone() for one in joining}
    runs = []
    for one, rows in zip(joining, logits, strict=True):
        asked = expansions[one.number]
        one.source.was_run(asked.paths)
        runs.append(RowsRun(one.source, asked.paths, zero_width=asked.zero_width, logits=rows))
    most = max(expansions[one.number].choices for one in joining)
    found = choices_after(runs, most)
    return {
        one.number: [row[: expansions[one.number].choices] for row in rows]
        for one, rows in zip(joining, found, strict=True)
    }
