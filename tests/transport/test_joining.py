"""Members and coordinator over real gRPC on loopback: joining, orders, outages, refusals."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from coordinator.config import CoordinatorConfig
from coordinator.server import CoordinatorServer
from protos.dragoman.v1 import dragoman_pb2 as pb
from protos.dragoman.v1 import dragoman_pb2_grpc as pb_grpc
from speculation.errors import ConnectionFailedError, InputError
from tests.support.coordinators import CONFIG, coordinating, joining, target
from tests.support.fleet_members import FakeDrafter
from tests.support.service_drivers import PATIENCE, QUICK, eventually
from transport.address import Address
from transport.backoff import Backoff
from transport.channels import open_channel
from transport.joining import CoordinatorLink
from transport.limits import PROTOCOL_VERSION


@contextlib.asynccontextmanager
async def stub_to(address: Address) -> AsyncIterator[pb_grpc.CoordinatorServiceStub]:
    async with open_channel(address) as channel:
        yield pb_grpc.CoordinatorServiceStub(channel)


async def test_members_join_report_and_take_orders():
    made, drafter = target(), FakeDrafter()
    async with coordinating() as (server, address):
        async with joining(address, made), joining(address, drafter):
            await eventually(lambda: made.links_of("s") == [1] and drafter.attached_to == ["10.0.0.1:50061"])
            await eventually(lambda: any(order.HasField("plan") for order in made.orders))
            async with stub_to(address) as stub:
                status = await stub.Status(pb.StatusRequest(protocol_version=PROTOCOL_VERSION))
            assert [member.instance for member in status.members] == ["v1", "d1"]
            assert [list(session.drafters) for session in status.sessions] == [["d1"]]
        # Both said goodbye.
        await eventually(lambda: not list(server.fleet.registry))


async def test_after_a_restart_of_the_coordinator_orders_resume(caplog: pytest.LogCaptureFixture):
    made = target()
    async with coordinating() as (_, address), contextlib.AsyncExitStack() as members:
        link = await members.enter_async_context(joining(address, made))
        await eventually(lambda: made.links_of("s") == [1])
        keep = members.pop_all()
    try:
        await eventually(lambda: not link.joined)
        made.sessions["s"].links = []
        await asyncio.sleep(0.2)
        warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(warnings) <= 1  # once per outage
        async with coordinating(address) as (server, _):
            await eventually(lambda: link.joined and made.links_of("s") == [1])
            assert len(list(server.fleet.registry)) == 1
            await keep.aclose()
    finally:
        await keep.aclose()


async def test_a_member_waits_for_a_coordinator_that_comes_late():
    made = target()
    async with coordinating() as (_, address):
        pass
    async with joining(address, made) as link:
        await asyncio.sleep(0.1)
        assert not link.joined
        async with coordinating(address):
            await eventually(lambda: link.joined)


@pytest.mark.parametrize("wrong", ["version", "name"])
async def test_a_refused_member_goes_on_without(wrong: str, caplog: pytest.LogCaptureFixture):
    made = target()
    registration = made.registration()
    if wrong == "version":
        registration.protocol_version = 99
    else:
        registration.name = ""
    async with coordinating() as (server, address):
        link = CoordinatorLink(address, registration, made.report, made.carry_out, backoff=QUICK)
        async with asyncio.timeout(PATIENCE):
            await link.run()
        assert not list(server.fleet.registry) and link.refusal is not None
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1 and ("99" if wrong == "version" else "registration.name") in errors[0]


async def test_streams_that_do_not_begin_with_a_registration_are_refused():
    async with coordinating() as (_, address), stub_to(address) as stub:
        for requests in ([], [pb.JoinRequest(leave=pb.Leave())], [pb.JoinRequest()]):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in stub.Join(iter(requests)):
                    pass
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "registration" in caught.value.details()


async def test_a_silent_member_is_dismissed_and_comes_back():
    """Its stream is open, but no reports come; the link notices the end of the stream and joins anew."""
    made = target()
    config = CoordinatorConfig(report_seconds=0.05, plan_seconds=0.05, missed_reports=4)
    silent = True

    def report() -> pb.JoinRequest:
        if silent:
            raise InputError("report", None, "is not ready")
        return made.report()

    async with coordinating(config=config) as (server, address):
        joined = []
        link = CoordinatorLink(
            address, made.registration(), report, made.carry_out, backoff=QUICK, on_joined=joined.append
        )
        running = asyncio.create_task(link.run())
        await eventually(lambda: len(joined) >= 2)
        silent = False
        await eventually(lambda: bool(server.fleet.sessions))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert joined[0].report_seconds == 0.05


async def test_orders_that_cannot_be_carried_out_end_nothing(caplog: pytest.LogCaptureFixture):
    made = target()
    seen = 0

    def carry_out(order: pb.JoinResponse) -> None:
        nonlocal seen
        seen += 1
        raise InputError("order", order.WhichOneof("message"), "is beyond this member")

    async with coordinating() as (_, address):
        link = CoordinatorLink(address, made.registration(), made.report, carry_out, backoff=QUICK)
        running = asyncio.create_task(link.run())
        await eventually(lambda: seen >= 2)
        assert link.joined
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert "cannot be carried out" in caplog.text


async def test_a_frozen_coordinator_is_noticed(caplog: pytest.LogCaptureFixture):
    """One that accepts streams and never says a word, as after SIGSTOP."""

    class Frozen(pb_grpc.CoordinatorServiceServicer):
        async def Join(self, requests, context):
            yield pb.JoinResponse(joined=pb.Joined(protocol_version=PROTOCOL_VERSION, report_seconds=0.1))
            await asyncio.Event().wait()

    server = grpc.aio.server()
    pb_grpc.add_CoordinatorServiceServicer_to_server(Frozen(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    joined: list[pb.Joined] = []
    async with joining(Address("127.0.0.1", port), target(), silence_seconds=0.1, on_joined=joined.append):
        await eventually(lambda: len(joined) >= 3)
    await server.stop(0)
    assert "silent for 0.1 s" in caplog.text


async def test_an_idle_member_hears_a_sign_of_life():
    async with coordinating() as (_, address), stub_to(address) as stub:
        call = stub.Join()
        await call.write(pb.JoinRequest(registration=FakeDrafter().registration()))
        for _ in range(2):
            assert (await call.read()).HasField("joined")
        call.cancel()


async def test_the_same_instance_again_ends_the_stream_before_it():
    registration = pb.JoinRequest(registration=target().registration())
    async with coordinating() as (server, address), stub_to(address) as stub:
        first, second = stub.Join(), stub.Join()
        for call in (first, second):
            await call.write(registration)
            assert (await call.read()).HasField("joined")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while await first.read() is not grpc.aio.EOF:
                pass
        assert "registered again" in caught.value.details()
        assert len(list(server.fleet.registry)) == 1
        second.cancel()


async def test_health_and_a_port_in_use():
    async with coordinating() as (_, address):
        async with open_channel(address) as channel:
            asked = health_pb2.HealthCheckRequest(service="dragoman.v1.CoordinatorService")
            answer = await health_pb2_grpc.HealthStub(channel).Check(asked)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(ConnectionFailedError, match="in use"):
            await CoordinatorServer(CONFIG).start(address)


def test_the_longest_outage_is_waited_out():
    for failures in (0, 10, 10_000, 10**9):
        assert 0 < Backoff().delay(failures) <= 0.6 * 1.2
