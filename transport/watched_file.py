"""A server's file of entries, a line each, that is looked at again at every call, so that a change counts at once."""

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
Entry = TypeVar("Entry")


class WatchedFile(Generic[Content]):
    """For any thread. ``read``: raises InputError, also to begin with."""

    def __init__(self, path: str, read: Callable[[Path], Content]) -> None:
        self._path = Path(path)
        self._read = read
        self._lock = threading.Lock()
        self._state: object = self._look()
        self._content: Content | None = read(self._path)
        self._complaint = ""

    @property
    def readable(self) -> bool:
        """Whether it says anything now."""
        return self.newest() is not None

    def newest(self) -> Content | None:
        """What it holds now; None while it cannot be read: whom it is to keep out must not come in by a slip."""
        with self._lock:
            state = self._look()
            if state != self._state:
                try:
                    self._content = self._read(self._path)
                    self._state, self._complaint = state, ""
                except InputError as error:
                    # Read again at every call: what kept it from being read need not change the file.
                    self._content, self._state = None, object()
                    if str(error) != self._complaint:
                        self._complaint = str(error)
                        log.error("nobody is let in until it is mended: %s", error)
            return self._content

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns


def read_entries(
    path: Path, entry_of: Callable[[str], Entry], *, field: str, meaning: str, command: str
) -> list[Entry]:
    """What ``entry_of`` makes of each line but remarks; ValueError and InputError of it say that the line is none.

    ``field``: the setting that names the file. ``meaning``: of a line, for people. ``command``: that writes such files.
    Raises InputError, which tells a line's number but not what is in it: it may be a secret that got there by mistake.
    """
    remedy = f"`dragoman {command}` writes it"
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise InputError(field, str(path), f"cannot be read: {error.strerror}", remedy=remedy) from error
    except UnicodeDecodeError as error:
        raise InputError(field, str(path), "is not UTF-8", remedy=remedy) from error
    found: list[Entry] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            found.append(entry_of(line))
        except (ValueError, InputError) as error:
            remedy = f"`dragoman {command}` writes such lines"
            raise InputError(field, str(path), f"line {number} is no {meaning}", remedy=remedy) from error
    return found
