"""`dragoman doctor --connect`: every step by its name, to the first that fails."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.fault_proxy import FaultProxy, LinkConditions
from benchmarks.ports import free_port
from dragoman.cli import main
from dragoman.connection_check import Step, run_connect, steps
from speculation.errors import AccessError, ConnectionFailedError, DragomanError, InputError, WrongServiceError
from tests.support.certificates import TestAuthority
from tests.support.coordinators import coordinating
from tests.support.service_drivers import serving
from tests.support.text_engine import TextEngine
from transport.address import Address
from transport.identity import Role
from transport.security import Security

ALL = ["settings", "DNS", "TCP", "TLS", "service", "version", "round trip", "bandwidth"]


@pytest.fixture
def ours(tmp_path: Path) -> TestAuthority:
    return TestAuthority(tmp_path / "ours")


async def gone(address: Address, security: Security = Security()) -> list[Step]:  # noqa: B008, it is frozen
    return [step async for step in steps(address, security)]


async def test_all_the_way_in_plaintext_and_in_mutual_tls(ours: TestAuthority):
    async with serving(TextEngine()) as (_, address):
        found = await gone(Address("localhost", address.port))
    assert [step.name for step in found] == ALL and all(step.error is None for step in found)
    words = {step.name: step.words for step in found}
    assert "plaintext" in words["settings"] and "127.0.0.1" in words["DNS"] and words["service"] == "a verifier"
    assert "text-target" in words["version"] and "median of 9" in words["round trip"]
    async with coordinating(security=ours.mutual(Role.COORDINATOR)) as (_, address):
        found = await gone(address, ours.mutual(Role.CLIENT))
        as_drafter = await gone(address, ours.mutual(Role.DRAFTER))
    assert [step.name for step in found] == [*ALL[:4], "identity", "identity", *ALL[4:]]
    words = {step.name: step.words for step in found[:5]} | {step.name: step.words for step in found[6:]}
    assert "mutual TLS" in words["settings"] and "TLSv1." in words["TLS"]
    assert "spiffe://dragoman/coordinator/a" in words["identity"] and words["service"] == "a coordinator"
    assert all(step.error is None for step in as_drafter)
    assert any("may not call Status" in step.words for step in as_drafter if step.name == "version")


async def test_the_bandwidth_is_that_of_the_link():
    """Towards the service."""
    async with serving(TextEngine()) as (_, address):
        bandwidth = (await gone(address))[-1]
        assert bandwidth.name == "bandwidth" and "Mbit/s towards the service" in bandwidth.words
        async with FaultProxy(address.host, address.port, LinkConditions(0.01, bytes_per_second=100_000)) as proxy:
            *_, bandwidth = await gone(Address.parse(proxy.address, field="proxy"))
    assert bandwidth.error is None
    assert 0.05 < float(bandwidth.words.removeprefix("at least ").split()[0]) < 1.6, bandwidth.words


async def test_each_step_that_fails_is_the_last(ours: TestAuthority, tmp_path: Path):
    other = TestAuthority(tmp_path / "other")
    closed = Address("127.0.0.1", free_port())

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    mute = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with mute, serving(TextEngine(), security=ours.mutual(Role.VERIFIER)) as (_, address):
        muted = Address("127.0.0.1", mute.sockets[0].getsockname()[1])
        cases: list[tuple[Address, Security, str, type[DragomanError], str]] = [
            (Address("10.1.2.3", 1), Security(), "settings", InputError, "another machine"),
            (Address("no.invalid", 1), Security(allow_plaintext=True), "DNS", ConnectionFailedError, "no address"),
            (closed, Security(), "TCP", ConnectionFailedError, "Connection refused"),
            (address, Security(), "TLS", AccessError, "speaks TLS"),
            (address, ours.trusting(), "TLS", AccessError, "this side has none"),
            (address, other.mutual(Role.CLIENT), "TLS", AccessError, "is not signed by"),
            (muted, ours.trusting(), "TLS", AccessError, "does not speak TLS"),
            (muted, Security(), "service", ConnectionFailedError, "answers at"),
        ]
        for where, security, name, kind, words in cases:
            *before, last = await gone(where, security)
            assert all(step.error is None for step in before)
            assert last.name == name and isinstance(last.error, kind) and words in last.words, last
            assert last.error.remedy


async def test_what_is_no_service_of_ours():
    import grpc
    from grpc_health.v1 import health, health_pb2_grpc

    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    *_, last = await gone(Address("127.0.0.1", port))
    await server.stop(None)
    assert last.name == "service" and isinstance(last.error, WrongServiceError)


@pytest.mark.parametrize("columns", [80, 40])
def test_how_it_looks(columns: int):
    console = Console(file=io.StringIO(), width=columns, force_terminal=True, color_system=None)
    with pytest.raises(ConnectionFailedError):
        run_connect(Address("localhost", free_port()), Security(), console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.startswith("settings   ok     plaintext") and "TCP        FAILED no connection to" in shown
    assert max(map(len, shown.splitlines())) <= columns


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "target: is missing"),
        (["--target=x"], "drafter: is missing"),
        (["--connect=x", "--target=y"], "connect='x': comes with a target, a drafter or their code"),
        (["--connect=a b"], "connect='a b': is not an address"),
        (["--connect=10.0.0.1"], "service='10.0.0.1:50061': is another machine"),
    ],
)
def test_mistakes(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *arguments])
    errors = capsys.readouterr().err
    assert ended.value.code == 2 and words in errors and "fix: " in errors
