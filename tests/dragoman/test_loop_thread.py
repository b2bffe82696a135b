"""An event loop for callers that have none: what runs in it, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading

import grpc
import pytest

from dragoman.loop_thread import LoopThread
from speculation.errors import SessionError


def grpc_polls() -> bool:
    """Whether gRPC has its thread that wakes event loops, for whatever is left of other tests as well."""
    gc.collect()
    return any("_poll" in thread.name for thread in threading.enumerate())


async def a_channel_comes_and_goes() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1"):
        await asyncio.sleep(0)


def test_grpc_is_held_until_the_loop_is_closed():
    """Or its last object, whichever thread collects it, would close the socket that the loop is being woken by."""
    before = grpc_polls()
    with contextlib.closing(LoopThread()) as loop:
        loop.run(a_channel_comes_and_goes())
        assert grpc_polls()
    assert grpc_polls() == before


def test_two_of_them_do_not_end_each_other():
    before = grpc_polls()
    with contextlib.closing(LoopThread()) as one:
        with contextlib.closing(LoopThread()) as other:
            other.run(a_channel_comes_and_goes())
        one.run(a_channel_comes_and_goes())
        assert grpc_polls()
    one.close()
    assert grpc_polls() == before


def test_a_closed_one_runs_nothing():
    loop = LoopThread()
    assert loop.run(asyncio.sleep(0, "done")) == "done"
    loop.close()
    with pytest.raises(SessionError, match="it is closed"):
        loop.run(asyncio.sleep(0))
