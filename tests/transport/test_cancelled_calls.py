"""grpc.aio's server prints no traceback for a call that ended cancelled, and prints every other."""

from __future__ import annotations

import asyncio
import importlib
import logging
from typing import Any

import grpc
import pytest

from transport.cancelled_calls import hush_cancelled_calls

CYGRPC: Any = importlib.import_module("grpc._cython.cygrpc")


@pytest.fixture
def loud(monkeypatch):
    """As grpc.aio comes, whatever this process served before."""
    logger = logging.getLogger("grpc._cython.cygrpc")
    monkeypatch.setattr(logger, "filters", [])
    monkeypatch.setattr(CYGRPC, "traceback", importlib.import_module("traceback"))


@pytest.mark.filterwarnings("ignore:coroutine '_handle_rpc' was never awaited")
@pytest.mark.parametrize("hushed", [False, True])
async def test_a_call_whose_task_ends_cancelled(loud, hushed: bool, capsys):
    if hushed:
        hush_cancelled_calls()
        hush_cancelled_calls()
    await ask_a_server_that_takes_the_call_away()
    assert ("Traceback" in capsys.readouterr().err) is not hushed


async def ask_a_server_that_takes_the_call_away() -> None:
    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.Service", {"Ask": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    asyncio.get_running_loop().set_task_factory(cancelling)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            ask: Any = channel.unary_unary("/a.Service/Ask")
            await ask(b"", timeout=1)
    await server.stop(0)


async def answer(_request: bytes, _context: object) -> bytes:
    raise AssertionError("is never begun")


def cancelling(loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> asyncio.Task[Any]:
    task = asyncio.Task(coroutine, loop=loop, **more)
    if coroutine.__qualname__ == "_handle_exceptions":
        task.cancel()
    return task


@pytest.mark.parametrize(("error", "printed"), [(asyncio.CancelledError(), False), (ValueError("seen"), True)])
def test_other_errors_are_printed_and_logged(loud, error: BaseException, printed: bool, capsys, caplog):
    hush_cancelled_calls()
    caplog.set_level(logging.DEBUG)
    try:
        raise error
    except BaseException:
        logging.getLogger("grpc._cython.cygrpc").exception("not handled")
        CYGRPC.traceback.print_exc()
    assert ("Traceback" in capsys.readouterr().err) is printed
    assert bool(caplog.records) is printed
    assert CYGRPC.traceback.format_exception(ValueError("seen"))[-1] == "ValueError: seen\n"
