"""Calls that end cancelled are no errors, and grpc.aio is kept from printing a traceback for each.

Its ``_schedule_rpc_coro`` (grpcio 1.85, ``_cython/_cygrpc/aio/server.pyx.pxi``) logs and prints whatever the task of a
call ends with, and that is a CancelledError when a server that stops at once takes a call away in its last step.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
import traceback
from typing import Any

#: Compiled, and without types for the whole of it.
_GRPC: Any = importlib.import_module("grpc._cython.cygrpc")


class _Printing:
    """What grpc.aio's server knows as the module ``traceback``."""

    def print_exc(self) -> None:
        if not isinstance(sys.exception(), asyncio.CancelledError):
            traceback.print_exc()

    def __getattr__(self, name: str) -> Any:
        return getattr(traceback, name)


def _is_error(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def hush_cancelled_calls() -> None:
    """Of every server in this process, whichever starts first. May be called again."""
    if not isinstance(getattr(_GRPC, "traceback", None), _Printing):
        _GRPC.traceback = _Printing()
        logging.getLogger(_GRPC.__name__).addFilter(_is_error)
