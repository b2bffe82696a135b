"""A text taken up again: what the client has of it already is the draft of the first steps, and is not shown twice.

The recorded bytes are trusted no more than any draft: the target runs the session anew from prompt and seed, in wide
steps, and what it commits must begin with them. They are cut to the width of a step here, so no limit of the pool
touches them, however long they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from speculation.errors import DivergedError
from speculation.plural import count_of
from speculation.text.text_stream import TextRun

#: Candidates of a step, so that it has 32 rows with the last committed token: beyond that, bf16 on a CPU rounds in
#: another way, and the text might not be the same.
REPLAY_WIDTH: Final = 31


class Replay:
    """``received``: the bytes that the client was shown; empty for a text that begins."""

    def __init__(self, received: bytes) -> None:
        self._received = received
        self._shown = 0

    def draft(self, committed: int, limit: int) -> bytes:
        """What was received after the first ``committed`` bytes, ``limit`` bytes at most; empty: it is over."""
        return self._received[committed : committed + max(limit, 0)]

    def unseen(self, runs: Sequence[TextRun], *, finished: bool) -> tuple[TextRun, ...]:
        """Of the text that comes to light, in order, what the client does not have yet.

        Raises DivergedError if the text is another one, or ends before it has reached what was received.
        """
        unseen: list[TextRun] = []
        for run in runs:
            known = self._received[self._shown : self._shown + len(run.text)]
            if not run.text.startswith(known):
                raise self._diverged(f"differs within {count_of(len(run.text), 'byte')} after byte {self._shown}")
            self._shown += len(run.text)
            if not known:
                unseen.append(run)
            elif len(known) < len(run.text):
                unseen.append(dataclasses.replace(run, text=run.text[len(known) :]))
        if finished and self._shown < len(self._received):
            raise self._diverged(f"ends after byte {self._shown}")
        return tuple(unseen)

    def _diverged(self, how: str) -> DivergedError:
        return DivergedError(
            f"received={count_of(len(self._received), 'byte')}: "
            f"they are not how this target answers this request; its text {how}",
            remedy="send all fields as they were, to a verifier of the same model and dtype; or start from nothing",
        )
