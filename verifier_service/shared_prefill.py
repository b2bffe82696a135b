"""One pass over the prompts of several sessions, in the engine's thread.

What fails in a prompt fails the session that it belongs to, and no other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from verifier_service.engine import Engine
from verifier_service.memory_queue import MemoryQueue
from verifier_service.open_session import OpenSession

#: Of a session: whether more of its prompt is left, or what it failed with.
PrefillOutcome = bool | Exception


@torch.inference_mode()
def run_prefill(
    engine: Engine, waiting: Sequence[OpenSession], memory: MemoryQueue
) -> dict[OpenSession, PrefillOutcome]:
    """Of the first that waits, and of those behind it for which the pass has rows, and there is memory."""
    outcomes: dict[OpenSession, PrefillOutcome] = {}
    taken: list[OpenSession] = []
    rows = engine.prefill_rows
    for opened in waiting:
        if (outcomes or taken) and (rows <= 0 or not (opened.begun or memory.has_room(opened))):
            break
        try:
            if not opened.begun:
                opened.begin(memory.growth)
        except Exception as error:
            outcomes[opened] = error
        else:
            taken.append(opened)
            rows -= opened.slot.prefill_left
    return outcomes | _run(engine, taken)


def _run(engine: Engine, taken: Sequence[OpenSession]) -> dict[OpenSession, PrefillOutcome]:
    if not taken:
        return {}
    try:
        engine.prefill([opened.slot for opened in taken])
    except Exception as error:
        if len(taken) == 1:
            return {taken[0]: error}
        # Whose fault it is, a pass for each tells; the others lose nothing but time.
        return {opened: outcome for each in taken for opened, outcome in _run(engine, [each]).items()}
    return {opened: opened.slot.prefill_left > 0 for opened in taken}
