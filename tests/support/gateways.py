"""Gateways over real HTTP on loopback, in front of verifiers and fleets over real gRPC, for tests."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import openai

from coordinator.server import CoordinatorServer
from dragoman.gateway_backend import fleet_backend, verifier_backend
from gateway.backend import Backend
from gateway.server import GatewayServer
from gateway.settings import GatewaySettings
from tests.support.coordinators import coordinating, running
from tests.support.service_drivers import LOOPBACK, eventually, serving
from tests.support.text_engine import TextEngine
from transport.address import Address
from transport.security import Security
from verifier_service.fleet_member import VerifierMember
from verifier_service.verifier import Verifier

MODEL = TextEngine.name
#: Of a completion, with a text that is long enough for something to happen in it.
STORY: dict[str, Any] = {"model": MODEL, "prompt": "a story: ", "seed": 9, "temperature": 0.8, "ignore_eos": True}


@contextlib.asynccontextmanager
async def gateway_to(
    backend: Backend, *, settings: GatewaySettings | None = None, security: Security | None = None
) -> AsyncIterator[tuple[GatewayServer, Address]]:
    """A gateway that serves, and its address."""
    server = GatewayServer(backend, settings, security=security)
    bound = await server.start(LOOPBACK)
    try:
        yield server, bound
    finally:
        await server.stop(grace=0.0)


@dataclass
class Front:
    """A gateway before one verifier, and clients of it."""

    engine: TextEngine
    verifier: Verifier
    verifier_address: Address
    server: GatewayServer
    url: str
    http: httpx.AsyncClient
    openai: openai.AsyncOpenAI

    async def post(self, path: str, **body: Any) -> httpx.Response:
        """A JSON body."""
        return await self.http.post(path, json=body)

    async def complete(self, **fields: Any) -> dict[str, Any]:
        """The whole body of a completion of ``STORY``, with these fields beside or instead."""
        response = await self.post("/v1/completions", **{**STORY, **fields})
        assert response.status_code == 200, response.text
        return response.json()

    async def metric(self, name: str, **labels: str) -> float:
        """Of the gateway's page; 0 if it is not there."""
        written = ",".join(f'{label}="{value}"' for label, value in labels.items())
        line = f"dragoman_gateway_{name}" + (f"{{{written}}} " if written else " ")
        page = (await self.http.get("/metrics")).text
        return next((float(found.rpartition(" ")[2]) for found in page.splitlines() if found.startswith(line)), 0.0)


@contextlib.asynccontextmanager
async def clients_of(address: Address) -> AsyncIterator[tuple[str, httpx.AsyncClient, openai.AsyncOpenAI]]:
    """Its URL, and clients that leave proxies alone."""
    url = f"http://{address}"
    async with (
        httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as http,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as asking,
    ):
        yield url, http, asking


@contextlib.asynccontextmanager
async def front(
    engine: TextEngine | None = None, *, settings: GatewaySettings | None = None, **options: Any
) -> AsyncIterator[Front]:
    """``options``: of the verifier."""
    engine = engine or TextEngine()
    async with (
        serving(engine, **options) as (verifier, at),
        verifier_backend(at) as backend,
        gateway_to(backend, settings=settings) as (server, address),
        clients_of(address) as (url, http, asking),
    ):
        yield Front(engine, verifier, at, server, url, http, asking)


@contextlib.asynccontextmanager
async def joined(
    at: Address, engine: TextEngine, name: str, *, listen: Address = LOOPBACK
) -> AsyncIterator[tuple[Verifier, Address]]:
    """A verifier that is a member of the coordinator's fleet."""
    async with serving(engine, listen=listen) as (verifier, address):
        member = VerifierMember(verifier, at, instance=name, name=name, advertised=str(address))
        async with running(member):
            yield verifier, address


async def registered(server: CoordinatorServer, count: int) -> None:
    """Until so many verifiers have reported."""
    await eventually(lambda: sum(member.reports > 0 for member in server.fleet.registry.verifiers) == count)


@contextlib.asynccontextmanager
async def fleet_front() -> AsyncIterator[tuple[CoordinatorServer, Address, httpx.AsyncClient, openai.AsyncOpenAI]]:
    """A gateway before a fleet that has no verifier yet: (coordinator, its address, clients of the gateway)."""
    async with (
        coordinating() as (server, at),
        fleet_backend(at) as backend,
        gateway_to(backend) as (_, address),
        clients_of(address) as (_, http, asking),
    ):
        yield server, at, http, asking


def named(name: str, *, salt: int = 1, step_seconds: float = 0.0) -> TextEngine:
    """An engine of a model of that name."""
    engine = TextEngine(salt=salt, step_seconds=step_seconds)
    engine.name = name
    return engine


def events_of(text: str) -> list[Any]:
    """The data of server-sent events; the last of an orderly end is "[DONE]"."""
    events = [event.removeprefix("data: ") for event in text.split("\n\n") if event]
    return [event if event == "[DONE]" else json.loads(event) for event in events]
