"""A drafter of one's own: anything that can guess text can draft, for any target.

This one knows some phrases by heart and continues whichever the text has begun. It drafts bytes and has no vocabulary.

    python examples/own_drafter.py --target qwen2.5-coder-1.5b

For a remote verifier, give the drafter to ``drafter_service.client.DrafterClient`` in place of ``Dragoman``.
"""

from __future__ import annotations

from collections.abc import Sequence

import typer

from drafter_service.draft_source import Path
from dragoman import SyncDragoman
from speculation.protocol.messages import SessionOffer
from speculation.sessions.drafter_session import DraftToken

PHRASES = (
    b"return fibonacci(n - 1) + fibonacci(n - 2)\n",
    b"if __name__ == '__main__':\n    main()\n",
    b"raise ValueError(f'n must not be negative, not {n}')\n",
)


class PhraseDrafter:
    """Opens a source for each session that it is offered."""

    model_name = "phrases"
    vocab_size = 0  # none
    vocab_hash = ""

    def open(self, offer: SessionOffer) -> PhraseSource:
        """A session begins, or is taken up with ``offer.committed`` written already."""
        return PhraseSource(offer)

    def measure(self) -> float:
        """Seconds per token: next to nothing."""
        return 1e-6


class PhraseSource:
    """One session's drafting. A handle is a place in ``_guesses``; a path of handles is a branch of the draft."""

    def __init__(self, offer: SessionOffer) -> None:
        self._text = offer.committed
        self._guesses: list[bytes] = []

    def move(self, path: Path, keep: int, text: bytes | None) -> None:
        """The branch was accepted; or, with ``text``, the target wrote something else after ``keep`` bytes."""
        self._text += b"".join(self._guesses[handle] for handle in path)
        if text is not None:
            self._text = self._text[:keep] + text

    def expand(self, paths: Sequence[Path], *, zero_width: int, choices: int) -> list[list[DraftToken]]:
        """What may come after each branch."""
        return [[self._next(self._text + b"".join(self._guesses[handle] for handle in path))] for path in paths]

    def _next(self, text: bytes) -> DraftToken:
        for phrase in PHRASES:
            for begun in range(len(phrase) - 1, 2, -1):
                if text.endswith(phrase[:begun]):
                    word = phrase[begun:].partition(b" ")[0] or b" "
                    self._guesses.append(word)
                    return DraftToken(word, confidence=0.8, token=len(self._guesses) - 1)
        return DraftToken(b"", stops=True)  # nothing to offer here; asked again when the text has gone on

    def close(self) -> None:
        """The session is over."""


def main(target: str = "qwen2.5-coder-1.5b", prompt: str = "def fibonacci(n):", max_tokens: int = 64) -> None:
    """Write a completion with the phrase drafter."""
    with SyncDragoman(target, [PhraseDrafter()]) as model:
        done = model.complete(prompt, max_tokens=max_tokens)
    print(prompt + done.text)
    for share in done.shares:
        print(f"{share.name or share.source.label}: {share.accepted_tokens} of {share.draft_tokens} accepted")


if __name__ == "__main__":
    typer.run(main)
