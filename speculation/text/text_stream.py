"""From committed bytes to what a client may see.

Three things stand between the two: a stop string ends the text before its first byte (wherever in a block it is
completed, also across blocks), a possible beginning of a stop string is held back, and so is an unfinished UTF-8
character. Bytes keep the mark of who wrote them, the target or a source of drafts; a character has that of its last
byte.

Invariant: what ``push`` and ``flush`` returned, joined, is the generated text up to the stop string.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from speculation.errors import InputError
from speculation.source import SourceKind
from speculation.text.retokenize import complete_utf8_prefix


@dataclass(frozen=True, slots=True)
class TextRun:
    """Whole characters of one hand: ``drafted`` if a guess was accepted, else the target's own.

    ``source``: whose guess it was.

    Only the end of a text may be an unfinished character, and where a text is no UTF-8, runs are cut somewhere in it.
    """

    text: bytes
    drafted: bool
    source: SourceKind | None = None


MAX_STOP_BYTES = 1024


def check_stops(stops: Sequence[bytes]) -> None:
    """Raises InputError for one that is empty or too long."""
    for stop in stops:
        if not 0 < len(stop) <= MAX_STOP_BYTES:
            raise InputError("stop", stop, f"must have 1..{MAX_STOP_BYTES} bytes", remedy="leave it out")


class TextStream:
    """Feed tokens' bytes, get text to show. ``stops``: see ``check_stops``, whose InputError is raised."""

    def __init__(self, stops: Sequence[bytes] = ()) -> None:
        check_stops(stops)
        self._stops = tuple(stops)
        self._held = bytearray()
        self._marks: list[tuple[bool, SourceKind | None]] = []
        self.stop: bytes | None = None

    @property
    def stopped(self) -> bool:
        return self.stop is not None

    def push(self, text: bytes, *, drafted: bool, source: SourceKind | None = None) -> tuple[TextRun, ...]:
        """Add one token's bytes; returns what may be shown now. Sets ``stop`` to the stop string that is complete."""
        if self.stopped:
            return ()
        if not self._stops and not self._held and text.isascii():  # mostly: nothing of it has to wait
            return (TextRun(text, drafted, source),) if text else ()
        # Only text held back can have begun a stop string: everything before was released because it cannot.
        self._held += text
        self._marks += [(drafted, source)] * len(text)
        ends = [(at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if ends:
            at, self.stop = min(ends)
            return self._release(at)
        safe = len(self._held) - self._possible_stop()
        return self._release(complete_utf8_prefix(bytes(self._held[:safe])))

    def flush(self) -> tuple[TextRun, ...]:
        """The end of the text without a stop string: release what was held back."""
        return () if self.stopped else self._release(len(self._held))

    def _possible_stop(self) -> int:
        """Length of the longest suffix of the held text that begins a stop string."""
        return max(
            (n for stop in self._stops for n in range(1, len(stop)) if self._held.endswith(stop[:n])),
            default=0,
        )

    def _release(self, length: int) -> tuple[TextRun, ...]:
        """The first ``length`` bytes held. Never called in mid-character but at the end of a text."""
        for at in range(length - 2, -1, -1):
            if self._held[at + 1] & 0xC0 == 0x80:  # a continuation byte: a character belongs to who finished it
                self._marks[at] = self._marks[at + 1]
        runs: list[TextRun] = []
        start = 0
        while start < length:
            end = start + 1
            while end < length and self._marks[end] == self._marks[start]:
                end += 1
            runs.append(TextRun(bytes(self._held[start:end]), *self._marks[start]))
            start = end
        del self._held[:length], self._marks[:length]
        return tuple(runs)
