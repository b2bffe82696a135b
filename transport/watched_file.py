"""A server's file that is looked at again at every call, so that a change counts at once."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from speculation.errors import InputError

log = logging.getLogger(__name__)
Content = TypeVar("Content")


class WatchedFile(Generic[Content]):
    """For any thread. ``read``: raises InputError, also to begin with."""

    def __init__(self, path: str, read: Callable[[Path], Content]) -> None:
        self._path = Path(path)
        self._read = read
        self._lock = threading.Lock()
        self._state = self._look()
        self._content: Content | None = read(self._path)

    def newest(self) -> Content | None:
        """What it holds now; None while it cannot be read: whom it is to keep out must not come in by a slip."""
        with self._lock:
            state = self._look()
            if state != self._state:
                self._state = state
                try:
                    self._content = self._read(self._path)
                except InputError as error:
                    log.error("nobody is let in until it is mended: %s", error)
                    self._content = None
            return self._content

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns
