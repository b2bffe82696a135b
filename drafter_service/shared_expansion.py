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
from speculation.sessions.drafter_session import DraftToken

log = logging.getLogger(__name__)


class _Joining(NamedTuple):
    """An expansion, as far as the pass."""

    asked: Expansion
    source: ModelDraftSource
    coming: Continuation


def expand_together(expansions: Sequence[Expansion]) -> list[Answer]:
    """Of each what ``source.expand`` gives, or raises; sources of one model that joins passes run theirs in one."""
    if len(expansions) == 1:
        return [expansions[0].alone()]
    begun = [_begin(expansion) for expansion in expansions]
    joining = [one for one in begun if isinstance(one, _Joining)]
    found = iter(_in_one_pass(joining) if joining else [])
    return [next(found) if isinstance(one, _Joining) else one for one in begun]


def _begin(asked: Expansion) -> _Joining | Answer:
    """As far as the pass, or all of it by itself."""
    source = asked.source
    if not (isinstance(source, ModelDraftSource) and source.joins_passes):
        return asked.alone()
    try:
        coming = source.continuation(asked.paths)
    except Exception as error:
        return error
    return asked.alone() if coming is None else _Joining(asked, source, coming)


@torch.inference_mode()
def _in_one_pass(joining: Sequence[_Joining]) -> list[Answer]:
    model = joining[0].source.model
    assert isinstance(model, JoinsPasses)
    logits = None
    try:
        logits = model.forward_all([one.coming for one in joining])
    except Exception:
        log.debug("a pass of %d sessions failed; each runs alone", len(joining), exc_info=True)
    if logits is None:  # one of them has no KV memory, say: each alone tells which
        return [one.asked.alone() for one in joining]
    runs = []
    for one, rows in zip(joining, logits, strict=True):
        one.source.was_run(one.asked.paths)
        runs.append(RowsRun(one.source, one.asked.paths, zero_width=one.asked.zero_width, logits=rows))
    return _drawn(runs, [one.asked.choices for one in joining])


def _drawn(runs: Sequence[RowsRun], counts: Sequence[int]) -> list[Answer]:
    """Those that are ranked by rows together; the others, or all if that fails, session by session."""
    ranked = [run for run in runs if run.source.is_ranked_by_rows]
    found = _ranked_together(ranked, max(counts)) if ranked else None
    rows_of = iter(found or [])
    return [
        [row[:count] for row in next(rows_of)] if found and run.source.is_ranked_by_rows else _drawn_alone(run, count)
        for run, count in zip(runs, counts, strict=True)
    ]


def _ranked_together(runs: Sequence[RowsRun], count: int) -> list[list[list[DraftToken]]] | None:
    """None if it cannot be: there is no memory for all of them, say."""
    try:
        return choices_after(runs, count)
    except Exception:
        log.debug("the draws of %d sessions failed; each is drawn alone", len(runs), exc_info=True)
        return None


def _drawn_alone(run: RowsRun, count: int) -> Answer:
    try:
        return choices_after([run], count)[0]
    except Exception as error:
        return error
