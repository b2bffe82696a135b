"""One pass over the prompts of several slots.

A prompt's tokens are run in passes of one number of rows, a text's in steps: so a token has the same bits whatever ran
beside it, wherever its chunk began, and whoever ran the prompt first.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.paged_slot import PagedSlot
from engine.step_tables import SequenceRows


def run_prompts(slots: Sequence[PagedSlot]) -> None:
    """What is left of them, in their order, as far as the rows of the first one's pass reach.

    Of those that begin alike the first runs; the others share it afterwards. Raises LimitExceededError without KV
    memory; then nothing was run.
    """
    for slot in slots:
        slot.share()
    waiting = [slot for slot in slots if slot.prefill_left]
    if not waiting:
        return
    shape = waiting[0].prefill_shape
    rows, coming = shape.tables.rows, set[bytes]()
    tiles: list[SequenceRows] = []
    taken: list[tuple[PagedSlot, int]] = []
    for slot in waiting:
        page = slot.coming_page
        if not rows or slot.prefill_shape is not shape or page in coming:
            continue
        chunk = slot.chunk(rows)
        tiles += chunk
        taken.append((slot, sum(len(tile.tokens) for tile in chunk)))
        rows -= taken[-1][1]
        coming |= {page} if page is not None else set()
    shape.run(tiles)
    for slot, tokens in taken:
        slot.prefilled(tokens)
