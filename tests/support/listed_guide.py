"""A guide whose texts are all listed: what it allows can be read off the list."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from speculation.errors import SessionError
from speculation.guide import Forced, Path
from speculation.text.byte_vocab import ByteVocab


def allowed_after(text: bytes, texts: Sequence[bytes], vocab: ByteVocab) -> list[bool]:
    """By the definition: of each token, whether a listed text can still come of it."""
    return [
        text in texts if token in vocab.end_ids else bool(data) and any(each.startswith(text + data) for each in texts)
        for token, data in enumerate(data or b"" for data in vocab.token_bytes)
    ]


class ListedGuide:
    """See ``speculation.guide.Guide``. ``texts``: each can be spelled to its end, however it was begun."""

    def __init__(self, vocab: ByteVocab, texts: Sequence[bytes]) -> None:
        self._vocab = vocab
        self._texts = texts
        self.committed: list[int] = []

    def _allowed(self, path: Path) -> list[bool]:
        ids = [*self.committed, *path]
        if ids and ids[-1] in self._vocab.end_ids:
            return [token in self._vocab.end_ids for token in range(self._vocab.size)]
        return allowed_after(self._vocab.text(ids), self._texts, self._vocab)

    def advance(self, token: int) -> None:
        """Raises SessionError for one that is not allowed."""
        if not self._allowed(())[token]:
            raise SessionError("not allowed")
        self.committed.append(token)

    def masks(self, paths: Sequence[Path]) -> list[bytes]:
        """As bits, to a whole word."""
        found = []
        for path in paths:
            mask = bytearray(4 * -(-self._vocab.size // 32))
            for token, allowed in enumerate(self._allowed(path)):
                mask[token // 8] |= allowed << token % 8
            found.append(bytes(mask))
        return found

    def fits(self, path: Path) -> bool:
        """Token by token."""
        return all(self._allowed(path[:at])[token] for at, token in enumerate(path))

    def forced(self) -> Forced:
        """What all that is left has in common; the end, where one text alone is left."""
        text = self._vocab.text(self.committed)
        left = [each for each in self._texts if each.startswith(text)]
        if not left:
            return Forced()
        first, last = min(left), max(left)  # what these two share, all do
        same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
        data = first[len(text) : same]
        return Forced(data, bool(data) and len(left) == 1)
