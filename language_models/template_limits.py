"""A bound on the time that a chat template takes and on the text that it makes: whoever wrote it may have erred, or
mean harm, and messages come from anybody.

Jinja compiles a template to Python functions of lines, and a loop comes by its lines again and again: there the clock
is looked at. A single expression is not interrupted; jinja's sandbox bounds ranges, and the text is measured at the
end.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

#: Of processor time of one rendering: thousands of times what a long conversation takes.
SECONDS: Final = 1.0
#: A text that is longer than this many times its messages, with room for a template's own, is not a prompt.
_TIMES, _ROOM = 8, 1 << 20
#: How jinja names the code of a template that is not a file.
_TEMPLATE: Final = "<template>"


@contextlib.contextmanager
def bounded_time(seconds: float = SECONDS) -> Iterator[None]:
    """Templates that run in here, in this thread, raise TimeoutError once they took ``seconds`` of processor time.

    Garbage collections are not counted: they are the whole process's, and may fall into any line.
    """
    deadline, here, collecting = time.thread_time() + seconds, threading.get_ident(), 0.0

    def on_collection(phase: str, info: dict[str, int]) -> None:
        nonlocal deadline, collecting
        if threading.get_ident() != here:
            return
        if phase == "start":
            collecting = time.thread_time()
        else:
            deadline += time.thread_time() - collecting

    def on_line(frame: FrameType, event: str, arg: Any) -> Any:
        if time.thread_time() > deadline:
            raise TimeoutError(f"it takes more than {seconds:g} s")
        return on_line

    def on_call(frame: FrameType, event: str, arg: Any) -> Any:
        return on_line if frame.f_code.co_filename == _TEMPLATE else None

    before = sys.gettrace()
    gc.callbacks.append(on_collection)
    sys.settrace(on_call)
    try:
        yield
    finally:
        sys.settrace(before)
        gc.callbacks.remove(on_collection)


def check_length(text: str, *, messages: int) -> None:
    """``messages``: characters of all of them. Raises ValueError for a text that is many times as long."""
    if len(text) > _TIMES * messages + _ROOM:
        raise ValueError(f"it makes {len(text)} characters of {messages}")
