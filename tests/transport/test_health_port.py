"""`--health-listen`: health checks in plaintext at a port of their own, for probes that speak no TLS."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.ports import free_port
from coordinator.server import CoordinatorServer
from protos.dragoman.v1 import dragoman_pb2 as pb
from protos.dragoman.v1 import dragoman_pb2_grpc as pb_grpc
from tests.support.certificates import TestAuthority
from tests.support.commands import dragoman, hearing_signals
from tests.support.coordinators import CONFIG, coordinating
from tests.support.service_drivers import LOOPBACK, PATIENCE, serving
from tests.support.text_engine import TextEngine
from transport.address import Address
from transport.identity import Role
from verifier_service.server import VerifierServer

#: Another test may have the port that is taken if none is named.
ANYWHERE = "--listen=127.0.0.1:0"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def free_address() -> Address:
    return Address("127.0.0.1", free_port())


async def health_at(address: Address, service: str = "") -> int | None:
    """None: nobody answers there."""
    async with grpc.aio.insecure_channel(str(address)) as channel:
        asked = health_pb2.HealthCheckRequest(service=service)
        try:
            return (await health_pb2_grpc.HealthStub(channel).Check(asked)).status
        except grpc.aio.AioRpcError:
            return None


async def comes_to(listen: Address, status: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while await health_at(listen) != status:
            await asyncio.sleep(0.05)


async def test_a_server_in_mutual_tls_answers_probes_without(tmp_path: Path):
    """And nothing but probes: who has no certificate gets no further through that port."""
    listen, security = free_address(), TestAuthority(tmp_path).mutual(Role.COORDINATOR, "c")
    server = CoordinatorServer(CONFIG, security=security, health_listen=listen)
    bound = await server.start(LOOPBACK)
    try:
        assert await health_at(listen) == SERVING
        assert await health_at(listen, "dragoman.v1.CoordinatorService") == SERVING
        assert await health_at(bound) is None
        async with grpc.aio.insecure_channel(str(listen)) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await pb_grpc.CoordinatorServiceStub(channel).Status(pb.StatusRequest())
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    finally:
        await server.stop()
    assert await health_at(listen) is None


async def test_a_verifier_is_ready_when_its_model_is_there():
    listen = free_address()
    server = VerifierServer(health_listen=listen)
    await server.start(LOOPBACK)
    assert await health_at(listen) == NOT_SERVING
    async with serving(TextEngine()) as (verifier, _):
        await server.open(verifier)
        assert await health_at(listen) == SERVING
        await server.stop(grace=0.1)


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(hearing_signals(*arguments)) as process:
        try:
            yield process
        finally:
            process.terminate()


@pytest.mark.process
async def test_a_drafter_is_ready_when_it_was_let_in():
    listen, later = free_address(), free_address()
    with running("drafter", "--model=lookup", f"--coordinator={later}", f"--health-listen={listen}") as process:
        await comes_to(listen, NOT_SERVING)
        async with coordinating(listen=later):
            await comes_to(listen, SERVING)
            assert await health_at(listen, "dragoman.v1.Drafter") == SERVING
        process.terminate()
        assert process.wait(30) == 0


@pytest.mark.process
@pytest.mark.parametrize("command", [("verifier", "--model=smollm2-135m", ANYWHERE), ("drafter", "--model=lookup")])
def test_a_port_that_is_taken_is_told_first(command: tuple[str, ...]):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = dragoman(*command, f"--health-listen=127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 4 and "give another --health-listen" in done.stderr, done.stderr
