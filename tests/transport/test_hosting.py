"""Services that come up by themselves, and the three actors, without Ray."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.ports import free_port
from coordinator.actor import CoordinatorActor
from coordinator.config import CoordinatorConfig
from coordinator.server import CoordinatorServer
from drafter_service.actor import DrafterActor
from drafter_service.settings import DrafterSettings
from dragoman.client import Client
from dragoman.fleet_client import FleetClient
from speculation.errors import (
    AccessError,
    ConnectionFailedError,
    DragomanError,
    InputError,
    ModelTooLargeError,
    UnknownModelError,
    VersionMismatchError,
)
from speculation.protocol.messages import Prompt
from tests.support.certificates import TestAuthority
from tests.support.collectors import collecting
from tests.support.coordinators import CONFIG, coordinating, joining, target
from tests.support.service_drivers import LOOPBACK, PATIENCE, described, eventually
from transport.address import Address
from transport.backoff import Backoff
from transport.hosting import SelfStarting
from transport.identity import Role
from transport.tracing import NO_SPAN, start_span
from verifier_service.actor import VerifierActor
from verifier_service.settings import VerifierSettings

QUICK = Backoff(shortest=0.01, longest=0.02)
SERVED = Address("10.0.0.1", 1)


def here() -> str:
    return "127.0.0.1"


class Scripted(SelfStarting):
    """Its attempts end with these errors, one after the other; then it serves until it is told to ``fall``."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.attempts = 0
        self.fall = asyncio.Event()
        super().__init__("scripted", here, backoff=QUICK)

    async def _serve(self, host: str, serving: Callable[[Address | None], None]) -> None:
        self.attempts += 1
        if self.errors:
            raise self.errors.pop(0)
        serving(SERVED)
        await self.fall.wait()
        self.fall.clear()

    def _facts(self) -> dict[str, Any]:
        return {"attempts": self.attempts}


@asynccontextmanager
async def running(made: SelfStarting) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await made.stop()


async def test_it_comes_up_by_itself_and_again_when_it_falls():
    made = Scripted()
    async with running(made):
        await eventually(lambda: made.attempts == 1)
        told = await made.ready()
        assert (told["serving"], told["address"], told["problem"], told["attempts"]) == (True, str(SERVED), "", 1)
        assert await made.address() == str(SERVED)
        made.fall.set()
        await eventually(lambda: made.attempts == 2)
        assert (await made.ready())["serving"]
    stopped = await made.describe()
    assert not stopped["serving"] and stopped["address"] == "" and made.attempts == 2
    with pytest.raises(DragomanError, match="was stopped"):
        await made.ready()
    await made.stop()


async def test_what_may_pass_is_waited_for_and_what_cannot_is_said_at_once():
    made = Scripted(ConnectionFailedError("the port is in use"), OSError("odd"))
    async with running(made):
        assert (await made.ready())["attempts"] == 3
    made = Scripted(*[InputError("device", "x", "cannot be used")] * 3)
    async with running(made):
        with pytest.raises(InputError, match="device='x'"):
            await made.ready()
        # It tries all the same: after a restart elsewhere the same may be right.
        await eventually(lambda: made.attempts == 4)
        assert (await made.ready())["serving"]


async def test_a_coordinator_that_comes_back_elsewhere_is_found():
    asked: list[Address] = []
    answer: Address | None = None

    async def where() -> Address:
        if answer is None:
            raise ConnectionFailedError("nobody knows")
        asked.append(answer)
        return answer

    made = target()
    first, second = CoordinatorServer(CONFIG), CoordinatorServer(CONFIG)
    addresses = [await server.start(LOOPBACK) for server in (first, second)]
    try:
        async with joining(where, made) as link:
            await asyncio.sleep(0.1)
            assert not link.joined
            answer = addresses[0]
            await eventually(lambda: made.links_of("s") == [1])
            made.sessions["s"].links = []
            answer = addresses[1]
            await first.stop(grace=0.1)
            await eventually(lambda: link.joined and made.links_of("s") == [1])
            assert asked[-1] == addresses[1] and len(second.fleet.registry.verifiers) == 1
    finally:
        await asyncio.gather(first.stop(grace=0.1), second.stop(grace=0.1))


async def test_the_three_actors_make_a_fleet(tiny_qwen2: Path, tiny_llama: Path):
    coordinator = CoordinatorActor("coordinator", CoordinatorConfig(), free_port(), host=here)

    async def where() -> Address:
        return Address.parse(await coordinator.address(), field="coordinator")

    async with running(coordinator):
        verifier = VerifierActor(
            "q/0", VerifierSettings(model=str(tiny_qwen2), dtype="float32", threads=1), host=here, coordinator=where
        )
        async with running(verifier):
            assert (await verifier.ready())["address"].startswith("127.0.0.1:")
            drafter = DrafterActor(
                "l/0", DrafterSettings(model=str(tiny_llama), threads=1), host=here, coordinator=where
            )
            async with running(drafter):
                await drafter.ready()
                facts = await coordinator.describe()
                assert (facts["verifiers"], facts["drafters"]) == (1, 1)
                async with FleetClient(await coordinator.address()) as client:
                    text = await client.complete(Prompt(text="The heron"), max_tokens=30, ignore_end=True)
                assert text.completion_tokens == 30
                assert (await verifier.describe())["settings"]["threads"] == 1
                async with Client((await verifier.ready())["address"]) as direct:
                    await described(direct, sessions=0, kv_cache_bytes=0)
                assert await verifier.drain(0.0) == 0 and (await verifier.describe())["draining"]
            async with asyncio.timeout(PATIENCE):  # or it is taken for dead: its goodbye has half a second
                while (await coordinator.describe())["drafters"]:
                    await asyncio.sleep(0.05)


async def test_the_three_actors_make_a_fleet_in_mutual_tls(tiny_qwen2: Path, tmp_path: Path):
    """Each with the certificate of its role, as the fleet file names them."""
    ours = TestAuthority(tmp_path / "ours")
    coordinator = CoordinatorActor(
        "coordinator", CoordinatorConfig(), free_port(), host=here, security=ours.mutual(Role.COORDINATOR)
    )

    async def where() -> Address:
        return Address.parse(await coordinator.address(), field="coordinator")

    async with running(coordinator):
        settings = VerifierSettings(model=str(tiny_qwen2), dtype="float32", threads=1)
        verifier = VerifierActor("q/0", settings, host=here, coordinator=where, security=ours.mutual(Role.VERIFIER))
        drafter = DrafterActor(
            "l/0", DrafterSettings(model="lookup"), host=here, coordinator=where, security=ours.mutual(Role.DRAFTER)
        )
        stray = DrafterActor("s/0", DrafterSettings(model="lookup"), host=here, coordinator=where)
        async with running(verifier), running(drafter), running(stray):
            address = (await verifier.ready())["address"]
            await drafter.ready()
            with pytest.raises(AccessError, match="speaks TLS, and was dialled in plaintext"):
                await stray.ready()
            async with FleetClient(await coordinator.address(), security=ours.mutual(Role.CLIENT)) as client:
                text = await client.complete(Prompt(text="The heron"), max_tokens=8, ignore_end=True)
            assert text.completion_tokens == 8
            async with Client(address, security=ours.mutual(Role.CLIENT)) as direct:
                await described(direct, drafters=1)


@pytest.mark.parametrize("kind", ["verifier", "drafter"])
async def test_a_member_that_the_coordinator_does_not_want_says_so(
    tiny_qwen2: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    """A coordinator of another release that was left in the cluster: `up` says the true reason, at once."""
    monkeypatch.setattr(f"{kind}_service.fleet_member.PROTOCOL_VERSION", 99)
    async with coordinating() as (_, at):
        if kind == "verifier":
            made: SelfStarting = VerifierActor(
                "v/0", VerifierSettings(model=str(tiny_qwen2), dtype="float32", threads=1), host=here, coordinator=at
            )
        else:
            made = DrafterActor("d/0", DrafterSettings(model="lookup"), host=here, coordinator=at)
        async with running(made):
            with pytest.raises(VersionMismatchError, match="99"):
                async with asyncio.timeout(60):
                    await made.ready()


async def test_a_port_that_is_taken_is_tried_again():
    async with coordinating() as (_, address):
        made = CoordinatorActor("coordinator", CoordinatorConfig(), address.port, host=here)
        async with running(made):
            told = {"problem": ""}
            async with asyncio.timeout(60):
                while not told["problem"]:
                    await asyncio.sleep(0.02)
                    told = await made.describe()
            assert "in use" in told["problem"]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(made.ready(), 0.1)


def test_errors_travel_between_processes():
    for error in (
        InputError("a", 1, "is wrong", remedy="b"),
        UnknownModelError("no model", remedy="one of"),
        ModelTooLargeError("vast"),
    ):
        other = pickle.loads(pickle.dumps(error))
        assert type(other) is type(error) and str(other) == str(error) and vars(other) == vars(error)
        assert other.exit_code == error.exit_code


async def test_an_actor_records_spans_if_its_environment_asks(monkeypatch: pytest.MonkeyPatch):
    class Traced(Scripted):
        traces_as = "verifier"

    assert (VerifierActor.traces_as, DrafterActor.traces_as, CoordinatorActor.traces_as) == ("verifier", "drafter", "")
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        untraced = Scripted()
        await untraced.ready()
        assert start_span("of nobody") is NO_SPAN
        service = Traced()
        await service.ready()
        start_span("s").end()
        await asyncio.gather(service.stop(), untraced.stop())
    assert [span.name for span in collector.of("dragoman-verifier")] == ["s"] and start_span("late") is NO_SPAN
