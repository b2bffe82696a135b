"""Targets' vocabularies as a drafter knows them: received once, kept by content hash, aligned with its own."""

from __future__ import annotations

import contextlib
import re
import secrets
from pathlib import Path

import torch

from speculation.errors import ProtocolError, SessionError
from speculation.sampling.alignment import Alignment
from speculation.text.byte_vocab import ByteVocab
from speculation.text.vocab_table import vocab_of_table
from speculation.verification.string_rejection import FirstToken

_HASH = re.compile(r"[0-9a-f]{64}")


class TargetView:
    """A target's vocabulary, as a drafter of another vocabulary sees it."""

    def __init__(self, drafter: ByteVocab, target: ByteVocab) -> None:
        self.alignment = Alignment(drafter, target)
        self.first = FirstToken(target)
        special = [token for token, data in enumerate(drafter.token_bytes) if not data and token not in drafter.end_ids]
        self.without_text = torch.tensor(special, dtype=torch.int64)
        known = {data[0] for data in drafter.token_bytes if data and len(data) == 1}
        self._unknown_bytes = bytes(set(range(256)) - known)

    def can_spell(self, target_id: int) -> bool:
        """Whether the drafter has tokens for the text of a target's token, wherever it stands."""
        if not self._unknown_bytes:
            return True
        text = self.alignment.target.bytes_of(target_id)
        return not any(byte in self._unknown_bytes for byte in text)


class TargetVocabularies:
    """The vocabularies of targets that a drafter knows, by content hash; its own is one of them.

    ``folder``: where their tables are kept beyond the process, None for nowhere.
    """

    def __init__(self, own: ByteVocab, folder: Path | None = None) -> None:
        self._own = own
        self._folder = folder
        self._views: dict[str, TargetView] = {}

    def __contains__(self, content_hash: str) -> bool:
        known = content_hash in self._views or content_hash == self._own.content_hash
        return known or (self._file(content_hash) or Path()).is_file()

    def add_table(self, content_hash: str, table: bytes) -> None:
        """A table came. Raises ProtocolError if it is not that vocabulary's."""
        self._views[content_hash] = TargetView(self._own, vocab_of_table(table, content_hash=content_hash))
        if (file := self._file(content_hash)) is not None:
            with contextlib.suppress(OSError):  # a full or read-only disk only means that it travels again
                file.parent.mkdir(parents=True, exist_ok=True)
                part = file.with_suffix(f".{secrets.token_hex(4)}")
                part.write_bytes(table)
                part.replace(file)

    def get(self, content_hash: str) -> TargetView:
        """Raises SessionError if it is not known, ProtocolError if its file is damaged (which is removed then)."""
        if content_hash not in self._views:
            if content_hash == self._own.content_hash:
                self._views[content_hash] = TargetView(self._own, self._own)
            else:
                self._views[content_hash] = TargetView(self._own, self._read(content_hash))
        return self._views[content_hash]

    def _read(self, content_hash: str) -> ByteVocab:
        file = self._file(content_hash)
        if file is None or not file.is_file():
            raise SessionError(f"the target's vocabulary {content_hash[:12]} is not known here")
        try:
            return vocab_of_table(file.read_bytes(), content_hash=content_hash)
        except ProtocolError:
            file.unlink(missing_ok=True)
            raise

    def _file(self, content_hash: str) -> Path | None:
        """Only a hash is made a file's name, whatever the other side sent."""
        if self._folder is None or not _HASH.fullmatch(content_hash):
            return None
        return self._folder / content_hash
