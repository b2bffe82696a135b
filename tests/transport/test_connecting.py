"""What an attempt to connect may take."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.service_drivers import PATIENCE
from transport.address import Address
from transport.channels import open_channel


async def refused(channel: grpc.aio.Channel) -> grpc.StatusCode:
    """How a call ends that cannot get through."""
    try:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    except grpc.aio.AioRpcError as error:
        return error.code()
    raise AssertionError("nobody could have answered")


async def test_an_attempt_ends_when_its_time_is_up_and_not_before():
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(1024):
                pass
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
    async with (
        server,
        open_channel(address, connect_seconds=0.3) as hurried,
        open_channel(address, connect_seconds=10 * PATIENCE) as patient,
    ):
        calls = [asyncio.create_task(refused(channel)) for channel in (hurried, patient)]
        ended, _ = await asyncio.wait(calls, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        assert ended == {calls[0]} and calls[0].result() is grpc.StatusCode.UNAVAILABLE
        calls[1].cancel()
        await asyncio.gather(*calls, return_exceptions=True)
