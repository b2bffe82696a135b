"""What an attempt to connect may take."""

from __future__ import annotations

import asyncio
import socket

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.service_drivers import PATIENCE
from transport.address import Address
from transport.channels import open_channel
from transport.grpc_options import CONNECT_SECONDS


async def refused(channel: grpc.aio.Channel) -> grpc.StatusCode:
    """How a call ends that cannot get through."""
    try:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    except grpc.aio.AioRpcError as error:
        return error.code()
    raise AssertionError("nobody could have answered")


async def test_an_attempt_ends_when_its_time_is_up_and_not_before():
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel takes connections, and nobody says a word
        address = Address("127.0.0.1", silent.getsockname()[1])
        async with (
            open_channel(address, connect_seconds=0.3) as hurried,
            open_channel(address, connect_seconds=10 * PATIENCE) as patient,
        ):
            calls = [asyncio.create_task(refused(channel)) for channel in (hurried, patient)]
            assert await asyncio.wait_for(calls[0], PATIENCE) is grpc.StatusCode.UNAVAILABLE
            await asyncio.sleep(CONNECT_SECONDS + 1.0)
            assert not calls[1].done(), "it has more than what an attempt has by default"
            calls[1].cancel()
            await asyncio.gather(*calls, return_exceptions=True)
