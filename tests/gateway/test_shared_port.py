"""Gateways that share a port: each new connection goes to one that listens, and none to one that has stopped."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.ports import free_port
from dragoman.gateway_backend import fleet_backend, verifier_backend
from gateway.actor import GatewayActor, GatewayPorts
from gateway.server import GatewayServer
from gateway.settings import GatewaySettings
from speculation.errors import ConnectionFailedError, InputError
from tests.support.certificates import TestAuthority
from tests.support.coordinators import coordinating
from tests.support.gateways import MODEL, STORY, events_of, joined
from tests.support.service_drivers import LOOPBACK, eventually, serving
from tests.support.text_engine import TextEngine
from transport.address import Address
from transport.identity import Identity, Role
from transport.security import Security
from transport.tokens import new_token

#: Connections, of which one in two goes to each of two: that all go to the same happens once in 2^63 times.
CONNECTIONS = 64


@contextlib.asynccontextmanager
async def two(engine: TextEngine) -> AsyncIterator[tuple[Address, dict[GatewayServer, Address]]]:
    """Gateways in front of one verifier, at one port; each with a port of its own besides."""
    async with serving(engine) as (_, at), verifier_backend(at) as backend:
        servers = {GatewayServer(backend): Address("127.0.0.1", free_port()) for _ in range(2)}
        bound = LOOPBACK
        try:
            for server, own in servers.items():
                bound = await server.start(bound, shared=True, metrics=own)
            yield bound, servers
        finally:
            for server in servers:
                await server.stop(grace=0.0)


async def asked(address: Address, times: int = CONNECTIONS) -> None:
    """As often, each over a connection of its own. Raises for one that is not answered."""
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(trust_env=False, timeout=60, limits=limits) as http:
        for _ in range(times):
            assert (await http.get(f"http://{address}/version")).status_code == 200


async def answered(own: Address) -> int:
    """How many of them one gateway did."""
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        page = (await http.get(f"http://{own}/metrics")).text
    line = 'dragoman_gateway_requests_total{route="/version",status="200"} '
    return next((int(float(each.removeprefix(line))) for each in page.splitlines() if each.startswith(line)), 0)


async def test_connections_go_to_both_and_then_to_the_one_that_is_left():
    async with two(TextEngine(step_seconds=0.005)) as (address, servers):
        await asked(address)
        shares = [await answered(own) for own in servers.values()]
        assert sum(shares) == CONNECTIONS and all(shares), shares
        async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False, timeout=60) as http:
            fields = {**STORY, "max_tokens": 400, "stream": True}
            async with http.stream("POST", "/v1/completions", json=fields) as response:
                chunks = response.aiter_text()
                first = await anext(chunks)
                [draining] = [server for server in servers if server.texts_running]
                [other] = [own for server, own in servers.items() if server is not draining]
                before = await answered(other)
                stopping = asyncio.create_task(draining.stop())
                await asyncio.sleep(0)
                await asked(address)  # meanwhile nobody is turned away
                assert await answered(other) == before + CONNECTIONS
                events = events_of(first + "".join([chunk async for chunk in chunks]))
        assert events[-1] == "[DONE]" and await stopping == 0, "the text that ran has ended by itself"
        await draining.ended()


async def test_texts_that_do_not_end_in_time_are_told_and_counted():
    async with two(TextEngine(step_seconds=0.05)) as (address, servers):
        async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False, timeout=60) as http:
            fields = {**STORY, "max_tokens": 1000, "stream": True}
            async with http.stream("POST", "/v1/completions", json=fields) as response:
                chunks = response.aiter_text()
                first = await anext(chunks)
                [busy] = [server for server in servers if server.texts_running]
                stopping = asyncio.create_task(busy.stop(grace=0.0))
                events = events_of(first + "".join([chunk async for chunk in chunks]))
        assert "error" in events[-1] and await stopping == 1


async def test_a_port_of_its_own_has_health_and_metrics_alone():
    async with serving(TextEngine()) as (_, at), verifier_backend(at) as backend:
        taken = Address("127.0.0.1", free_port())
        server = GatewayServer(backend)
        bound = await server.start(LOOPBACK, shared=True, metrics=taken)
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
                for path, status in (("/health", 200), ("/metrics", 200), ("/v1/models", 404), ("/", 404)):
                    assert (await http.get(f"http://{taken}{path}")).status_code == status, path
                page = (await http.get(f"http://{bound}/metrics")).text
            assert 'route="/metrics",status="200"' in page, "and it tells the same as the other"
        finally:
            await server.stop(grace=0.0)


# ---- the actor ----------------------------------------------------------------------------------------------------

Siblings = Callable[[], Awaitable[Collection[tuple[str, str]]]]


async def nobody() -> Collection[tuple[str, str]]:
    return ()


@contextlib.asynccontextmanager
async def acting(
    coordinator: Address, port: int, siblings: Siblings = nobody, *, security: Security | None = None
) -> AsyncIterator[GatewayActor]:
    actor = GatewayActor(
        "gateway/0",
        GatewaySettings(grace=0.0),
        GatewayPorts(port),
        host=lambda: "127.0.0.1",
        connect=lambda: fleet_backend(coordinator),
        siblings=siblings,
        security=security,
        told={"port": port},
    )
    try:
        yield actor
    finally:
        await actor.stop()


async def told(actor: GatewayActor, **facts: Any) -> dict[str, Any]:
    """What it tells once it tells these."""
    async with asyncio.timeout(60):
        while not facts.items() <= (found := await actor.describe()).items():
            await asyncio.sleep(0.01)
    return found


async def test_an_actor_is_ready_once_a_text_would_find_a_verifier(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gateway.actor._LOOK_SECONDS", 0.05)
    async with coordinating() as (_, at), acting(at, free_port()) as actor:
        waiting = await told(actor, problem="no verifier is there")
        assert not waiting["serving"] and waiting["address"] == "" and waiting["listens"]
        async with joined(at, TextEngine(), "a"):
            facts = await actor.ready()
            assert facts["serving"] and facts["url"] == f"http://{facts['address']}" and facts["problem"] == ""
            async with httpx.AsyncClient(base_url=facts["url"], trust_env=False, timeout=60) as http:
                assert (await http.get("/health")).status_code == 200
                whole = (await http.post("/v1/completions", json={**STORY, "max_tokens": 5})).json()
            assert whole["model"] == MODEL and whole["usage"]["completion_tokens"] == 5
        lost = await told(actor, problem="no verifier is there")
        assert lost["serving"], "it answers, and says what it lacks"


async def test_only_siblings_share_the_port(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gateway.actor._LOOK_SECONDS", 0.05)
    async with coordinating() as (_, at), joined(at, TextEngine(), "a"), acting(at, free_port()) as first:
        port = Address.parse((await first.ready())["address"], field="address").port

        async def siblings() -> Collection[tuple[str, str]]:
            found = await first.describe()
            return {(found["host"], found["listens"])}

        async with acting(at, port, siblings) as second:
            assert (await second.ready())["address"] == (await first.describe())["address"]
            assert await second.drain(0.0) == 0
            facts = await told(second, draining=True)
            assert facts["serving"] and facts["sessions"] == 0
        async with acting(at, port) as stranger:
            await told(stranger, problem=str(_in_use(port)))
            await first.stop()
            await stranger.ready()  # it tried again


def _in_use(port: int) -> ConnectionFailedError:
    remedy = "give another gateway.port, or stop what runs there"
    return ConnectionFailedError(f"cannot listen at 127.0.0.1:{port}: the port is in use", remedy=remedy)


async def test_an_actor_whose_server_ends_by_itself_starts_it_again(monkeypatch: pytest.MonkeyPatch):
    made: list[GatewayServer] = []

    def making(*arguments: Any, **options: Any) -> GatewayServer:
        made.append(GatewayServer(*arguments, **options))
        return made[-1]

    monkeypatch.setattr("gateway.actor.GatewayServer", making)
    monkeypatch.setattr("gateway.actor._LOOK_SECONDS", 0.05)
    async with coordinating() as (_, at), joined(at, TextEngine(), "a"), acting(at, free_port()) as actor:
        await actor.ready()
        await made[0].stop(grace=0.0)
        await eventually(lambda: len(made) == 2)
        assert (await actor.ready())["serving"]


async def test_an_actor_asks_for_the_keys_of_its_file_and_says_if_that_is_not_there(tmp_path: Path):
    authority, keys = TestAuthority(tmp_path / "ours"), tmp_path / "keys"
    security = authority.one_way().model_copy(update={"tokens": str(keys)})
    secret, token = new_token(Identity(Role.CLIENT, "anna"))
    async with (
        coordinating() as (_, at),
        joined(at, TextEngine(), "a"),
        acting(at, free_port(), security=security) as actor,
    ):
        with pytest.raises(InputError, match=r"tokens=.*keys.*cannot be read"):
            await actor.ready()
        keys.write_text(f"{token.line}\n")
        facts = await told(actor, serving=True)  # it tried again
        context = ssl.create_default_context(cafile=authority.ca)
        async with httpx.AsyncClient(base_url=facts["url"], verify=context, trust_env=False, timeout=60) as http:
            assert (await http.get("/v1/models")).status_code == 401
            assert (await http.get("/v1/models", headers={"authorization": f"Bearer {secret}"})).status_code == 200
        assert facts["url"].startswith("https://") and secret not in str(facts) and token.digest not in str(facts)
