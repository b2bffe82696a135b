"""What an attempt to connect may take."""

from __future__ import annotations

import asyncio
import socket
import time

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
    """Without a limit of ours it would take twenty seconds."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel takes connections, and nobody says a word
        began = time.monotonic()
        async with open_channel(Address("127.0.0.1", silent.getsockname()[1])) as channel:
            assert await asyncio.wait_for(refused(channel), PATIENCE) is grpc.StatusCode.UNAVAILABLE
        assert 0.9 * CONNECT_SECONDS < time.monotonic() - began < 17


async def test_a_new_channel_tries_at_once_though_another_one_was_refused_a_moment_ago():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = Address("127.0.0.1", taken.getsockname()[1])
        async with open_channel(address) as before:
            assert await refused(before) is grpc.StatusCode.UNAVAILABLE
            taken.listen()
            taken.setblocking(False)
            async with open_channel(address) as channel:
                call = asyncio.create_task(refused(channel))
                came = asyncio.create_task(asyncio.get_running_loop().sock_accept(taken))
                await asyncio.wait((call, came), timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
                assert came.done() and not call.done(), "it is not told of what failed before"
                (await came)[0].close()
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)
