"""Texts that are being written, each in a thread of its caller, and their end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from speculation.errors import SessionError


class RunningTexts:
    """How many run, and in which threads. In any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._threads: list[int] = []
        self._closed = False

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """While it is written in this thread. Raises SessionError once no more may begin."""
        with self._changed:
            if self._closed:
                raise SessionError("it is being closed", remedy="close it when its texts are written")
            self._threads.append(threading.get_ident())
        try:
            yield
        finally:
            with self._changed:
                self._threads.remove(threading.get_ident())
                self._changed.notify_all()

    def refuse(self) -> None:
        """From now on none may begin."""
        with self._changed:
            self._closed = True

    def wait(self) -> None:
        """Until all are over but those of this thread, which cannot end meanwhile."""
        own = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: all(thread == own for thread in self._threads))
