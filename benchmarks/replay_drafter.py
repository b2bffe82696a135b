"""A drafter that says what a recording says, at any speed, and one that is never right."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence

from benchmarks.recording import RecordedText
from benchmarks.replay_target import number_of
from drafter_service import draft_source
from speculation.protocol.messages import SessionOffer
from speculation.sessions.drafter_session import DraftToken


class ReplayDrafter:
    """``token``: seconds per draft token. ``row``: what a second row of a batch adds, as a share; ``batch_seconds``."""

    model_name = "replay"
    vocab_size = 0
    vocab_hash = ""

    def __init__(self, texts: list[RecordedText], *, token: float, row: float) -> None:
        self.texts = texts
        self.token_seconds = token
        self.row_share = row

    def open(self, offer: SessionOffer) -> ReplayDraftSource:
        return ReplayDraftSource(self, self.texts[number_of(offer.prompt, self.texts)], offer.committed)

    def measure(self) -> float:
        return self.token_seconds


def batch_seconds(token: float, row: float, rows: int) -> float:
    """Of a batch with so many rows: the second adds the share ``row``, all from there on ever less.

    The exponent makes 15 % for two rows 25 % for three, 63 % for eight.
    """
    return token * (1 + row * (rows - 1) ** 0.74)


class ReplayDraftSource:
    """Drafts what the recorded drafter said after the same text. Where it was never asked, on a branch that is wrong
    already, it drafts words that no one says, with confidences that the recorded drafter had elsewhere: a real drafter
    does not know that it is lost, and spends its time there."""

    def __init__(self, drafter: ReplayDrafter, recorded: RecordedText, committed: bytes) -> None:
        self._drafter = drafter
        self._drafts: dict[bytes, list[list[tuple[str, float]]]] = {}
        self._elsewhere = [choices for draft in recorded.drafts for choices in draft]
        text = b""
        for token, draft in zip(recorded.tokens, recorded.drafts, strict=True):
            self._drafts[text] = draft
            text += token.encode("latin-1")
        self._text = committed
        self._words: list[bytes] = []

    def move(self, path: draft_source.Path, keep: int, text: bytes | None) -> None:
        self._text = self._at(path)
        if text is not None:
            self._text = self._text[:keep] + text

    def expand(self, paths: Sequence[draft_source.Path], *, zero_width: int, choices: int) -> list[list[DraftToken]]:
        time.sleep(batch_seconds(self._drafter.token_seconds, self._drafter.row_share, len(paths)))
        return [self._choices(path)[:choices] for path in paths]

    def _choices(self, path: draft_source.Path) -> list[DraftToken]:
        # The longest known text that this place continues with tokens drafted from there.
        for back in range(len(path) + 1):
            known = self._drafts.get(self._at(path[: len(path) - back]))
            if known is None:
                continue
            tail = [self._words[handle].decode("latin-1") for handle in path[len(path) - back :]]
            if len(known) > back and [draft[0][0] for draft in known[:back]] == tail:
                return [self._draft_token(text, probability) for text, probability in known[back]]
        lost = self._at(path)
        confidences = self._elsewhere[zlib.crc32(lost) % len(self._elsewhere)]
        return [self._draft_token(f"\0{choice}??", p) for choice, (_, p) in enumerate(confidences)]

    def _draft_token(self, text: str, probability: float) -> DraftToken:
        self._words.append(text.encode("latin-1"))
        return DraftToken(self._words[-1], probability, stops=not text, token=len(self._words) - 1)

    def _at(self, path: draft_source.Path) -> bytes:
        return self._text + b"".join(self._words[handle] for handle in path)

    def close(self) -> None:
        self._drafts.clear()


class WrongDrafter:
    """Is sure of itself and never right, for any target."""

    model_name = "wrong"
    vocab_size = 0
    vocab_hash = ""

    def __init__(self, *, token: float, row: float) -> None:
        self.token_seconds = token
        self.row_share = row

    def open(self, offer: SessionOffer) -> WrongDraftSource:
        return WrongDraftSource(self)

    def measure(self) -> float:
        return self.token_seconds


class WrongDraftSource:
    """Drafts one word that no one says."""

    def __init__(self, drafter: WrongDrafter) -> None:
        self._drafter = drafter

    def move(self, path: draft_source.Path, keep: int, text: bytes | None) -> None:
        pass

    def expand(self, paths: Sequence[draft_source.Path], *, zero_width: int, choices: int) -> list[list[DraftToken]]:
        time.sleep(batch_seconds(self._drafter.token_seconds, self._drafter.row_share, len(paths)))
        return [[DraftToken(b"\x00wrong", 0.99)] for _ in paths]

    def close(self) -> None:
        pass
