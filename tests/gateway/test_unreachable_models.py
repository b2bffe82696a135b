"""A model whose verifiers do not answer costs those of others nothing, and a fleet that is away nobody a place in a
queue: in front of real coordinators, and of addresses where packets go to nobody."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import grpc
import pytest

from dragoman import FleetClient, context_lengths
from dragoman.gateway_backend import LateBackend, fleet_backend, verifier_backend
from gateway import models, shared_answer
from gateway.fleet import FleetView
from gateway.models import ModelDirectory
from protos.dragoman.v1 import dragoman_pb2 as pb
from protos.dragoman.v1 import dragoman_pb2_grpc as pb_grpc
from speculation.errors import LoadingError, NoVerifierError, UnknownModelError
from speculation.protocol.messages import Prompt
from tests.support.coordinators import coordinating, running
from tests.support.gateways import STORY, fleet_front, joined, named, registered
from tests.support.service_drivers import LOOPBACK, PATIENCE, answering, eventually, serving
from transport.address import Address
from verifier_service.fleet_member import VerifierMember
from verifier_service.server import VerifierServer


class Hung(pb_grpc.VerifierServiceServicer):
    """A process that is stopped, as far as callers can see: calls reach it, and are never answered."""

    async def Describe(self, request: pb.DescribeRequest, context: grpc.aio.ServicerContext) -> pb.DescribeResponse:
        await asyncio.Event().wait()
        raise AssertionError


def hung() -> contextlib.AbstractAsyncContextManager[Address]:
    """A verifier that hangs."""
    return answering(Hung())


@contextlib.asynccontextmanager
async def loading() -> AsyncIterator[Address]:
    """A verifier that started anew where another was, and still loads its model."""
    server = VerifierServer()
    bound = await server.start(LOOPBACK)
    try:
        yield bound
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def silent() -> AsyncIterator[Address]:
    """Where connections are accepted, and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield Address("127.0.0.1", listening.getsockname()[1])


@contextlib.asynccontextmanager
async def dropping() -> AsyncIterator[Address]:
    """Where no connection is accepted or refused: those that wait for that are as many as may."""
    with contextlib.ExitStack() as held:
        listening = held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(8):
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(listening.getsockname())
        yield Address("127.0.0.1", listening.getsockname()[1])


@contextlib.asynccontextmanager
async def unreachable(at: Address, name: str, address: Address) -> AsyncIterator[None]:
    """A member of the fleet that reports, and whom clients do not reach."""
    async with serving(named(name)) as (verifier, _):
        member = VerifierMember(verifier, at, instance=name, name=name, advertised=str(address))
        async with running(member):
            yield


@pytest.mark.parametrize("nowhere", [hung, loading, silent, dropping])
async def test_a_model_that_does_not_answer_is_told_without_its_length_and_others_go_on(
    nowhere: Callable[[], contextlib.AbstractAsyncContextManager[Address]],
):
    async with (
        fleet_front() as (server, at, http, _),
        nowhere() as hole,
        joined(at, named("first"), "a"),
        unreachable(at, "stuck", hole),
    ):
        await registered(server, 2)
        written = await http.post("/v1/completions", json={**STORY, "model": "first", "max_tokens": 3})
        assert written.status_code == 200, written.text
        listed = (await http.get("/v1/models")).json()["data"]
        assert {model["id"]: model["max_model_len"] for model in listed} == {"first": 2048, "stuck": None}


async def test_a_model_that_did_not_answer_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch):
    async with (
        coordinating() as (server, at),
        FleetClient(at) as resting,
        FleetClient(at) as restless,
        contextlib.AsyncExitStack() as away,
    ):
        hole = await away.enter_async_context(hung())
        await away.enter_async_context(unreachable(at, "stuck", hole))
        await registered(server, 1)
        monkeypatch.setattr(context_lengths, "REST_SECONDS", 600.0)
        assert [model.context_length for model in await resting.models()] == [None]
        monkeypatch.setattr(context_lengths, "REST_SECONDS", 0.0)
        assert [model.context_length for model in await restless.models()] == [None]
        await away.aclose()
        async with joined(at, named("stuck"), "b"):
            await eventually(lambda: [member.instance for member in server.fleet.registry.verifiers] == ["b"])
            await registered(server, 1)
            assert [model.context_length for model in await resting.models()] == [None], "not asked so soon"
            assert [model.context_length for model in await restless.models()] == [2048]


class HungCoordinator(pb_grpc.CoordinatorServiceServicer):
    """As ``Hung``."""

    def __init__(self) -> None:
        self.asked = 0

    async def Status(self, request: pb.StatusRequest, context: grpc.aio.ServicerContext) -> pb.StatusResponse:
        self.asked += 1
        await asyncio.Event().wait()
        raise AssertionError

    async def Route(self, request: pb.RouteRequest, context: grpc.aio.ServicerContext) -> pb.RouteResponse:
        await asyncio.Event().wait()
        raise AssertionError


@contextlib.asynccontextmanager
async def hung_coordinator(at: Address | None = None) -> AsyncIterator[tuple[HungCoordinator, Address]]:
    """One that hangs, at that address or another."""
    servicer, server = HungCoordinator(), grpc.aio.server()
    pb_grpc.add_CoordinatorServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port(str(at) if at is not None else "127.0.0.1:0")
    await server.start()
    try:
        yield servicer, Address("127.0.0.1", port)
    finally:
        await server.stop(0)


async def test_a_coordinator_that_hangs_leaves_the_models_that_are_known():
    async with contextlib.AsyncExitStack() as stack:
        server, at = await stack.enter_async_context(coordinating())
        backend = await stack.enter_async_context(fleet_backend(at))
        await stack.enter_async_context(joined(at, named("first"), "a"))
        await registered(server, 1)
        directory = ModelDirectory(backend)
        (model,) = await directory.served()
        await backend.tokenize("first", Prompt(text="a"))
        await server.stop(grace=0)
        await stack.enter_async_context(hung_coordinator(at))
        assert list(await ModelDirectory(backend).served()) == [model]


async def test_a_request_does_not_wait_to_hear_again_that_its_model_is_served(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(models, "FRESH_SECONDS", 0.0)
    async with contextlib.AsyncExitStack() as stack:
        server, at = await stack.enter_async_context(coordinating())
        backend = await stack.enter_async_context(fleet_backend(at))
        await stack.enter_async_context(joined(at, named("first"), "a"))
        await registered(server, 1)
        directory = ModelDirectory(backend)
        model = await directory.find("first")
        await server.stop(grace=0)
        coordinator, _ = await stack.enter_async_context(hung_coordinator(at))
        assert await directory.find("first") == await directory.find("") == model
        await eventually(lambda: coordinator.asked)
        monkeypatch.setattr(shared_answer, "PATIENCE", 0.1)
        with pytest.raises(UnknownModelError, match="'second' is served here"):
            await directory.find("second")
        assert await directory.find("first") == model, "after a failure, too"


async def test_all_wait_for_one_answer_and_a_failure_that_took_long_is_remembered(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shared_answer, "PATIENCE", 2.0)
    monkeypatch.setattr(models, "FRESH_SECONDS", 60.0)
    async with hung_coordinator() as (coordinator, at), fleet_backend(at) as backend:
        directory = ModelDirectory(backend)
        asking = [asyncio.create_task(directory.served()) for _ in range(30)]
        await eventually(lambda: coordinator.asked)
        asking[0].cancel()
        told = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(told.pop(0), asyncio.CancelledError), "who leaves takes the answer from nobody"
        assert {str(error) for error in told} == {"no answer within 2 s"} and coordinator.asked == 1
        with pytest.raises(NoVerifierError, match="no answer within"):
            await directory.served()
        assert coordinator.asked == 1


async def test_however_many_watch_a_fleet_that_is_away_it_is_asked_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shared_answer, "PATIENCE", 1.0)
    async with hung_coordinator() as (coordinator, at), fleet_backend(at) as backend:
        watched = FleetView(backend)
        told = await asyncio.gather(*(watched.body() for _ in range(30)), return_exceptions=True)
        assert {str(error) for error in told} == {"no answer within 1 s"} and coordinator.asked == 1


async def test_what_is_told_at_once_may_be_over_in_a_moment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(models, "FRESH_SECONDS", 600.0)
    late = LateBackend()
    directory = ModelDirectory(late)
    with pytest.raises(LoadingError):
        await directory.served()
    async with serving(named("first")) as (_, address), verifier_backend(address) as backend:
        late.arrive(backend)

        async def served() -> bool:
            with contextlib.suppress(LoadingError):
                return [model.name for model in await directory.served()] == ["first"]
            return False

        async with asyncio.timeout(PATIENCE):
            while not await served():
                await asyncio.sleep(0)
