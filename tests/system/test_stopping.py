"""Verifiers that start, stop and come back, as processes: who dials them waits, resumes or dials again, and nothing
but plain words is said about it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.ports import free_port
from drafter_service.fleet_member import DrafterMember
from dragoman.client import Client
from dragoman.coordinator_client import CoordinatorClient
from dragoman.processes import ChildProcess, child
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import LoadingError, WrongServiceError
from speculation.protocol.messages import Prompt
from tests.support.commands import dragoman, hearing_signals
from tests.support.coordinators import coordinating
from tests.support.service_drivers import LOOPBACK, QUICK, described, drafters, drafting, eventually, serving
from tests.support.text_engine import TextDrafter, TextEngine
from transport.address import Address
from transport.channels import open_channel
from verifier_service.server import SERVICE, VerifierServer
from verifier_service.verifier import Verifier

pytestmark = pytest.mark.process

#: What Python and its libraries say when an end was not orderly.
NOISE = ("Traceback", "Task was destroyed", "never retrieved", "already running", "Cancelling all calls", "_linux.cc")


@contextlib.asynccontextmanager
async def tiny_verifier(model: Path, port: int = 0, *more: str) -> AsyncIterator[tuple[ChildProcess, str]]:
    options = (f"--model={model}", f"--listen=127.0.0.1:{port}", "--dtype=float32", "--threads=1", "--grace=50ms")
    async with child("verifier", ["verifier", *options, *more]) as started:
        yield started, (await started.ready())["address"]


async def ended(process: ChildProcess, number: signal.Signals) -> None:
    os.kill(process.pid, number)
    await process.stop()


def silent(process: ChildProcess) -> bool:
    """Whether it said nothing but what stage of its loading it was at."""
    return all(re.fullmatch(r"[a-z -]+ \.\.\.", line) for line in process.last_words.splitlines()) or (
        process.last_words == "it said nothing"
    )


# ---- ends ---------------------------------------------------------------------------------------------------------


async def test_a_stopped_verifier_and_its_idle_drafter_say_what_happened_and_no_more(tiny_qwen2: Path):
    async with child("drafter", ["drafter", "--model=lookup", f"--verifier=127.0.0.1:{(port := free_port())}"]) as idle:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            async with tiny_verifier(tiny_qwen2, port) as (verifier, address):
                async with Client(address) as client:
                    await described(client, drafters=1)
                await ended(verifier, number)
                assert silent(verifier), verifier.last_words
        # That it stopped, or, where a busy machine let its last words come too late, that the stream is over.
        with contextlib.suppress(TimeoutError):
            await eventually(lambda: idle.last_words.count("; dialling again") >= 3)
        assert idle.last_words.count("; dialling again") in (3, 4), idle.last_words  # and before there was any
        await ended(idle, signal.SIGINT)
        assert not [noise for noise in NOISE if noise in idle.last_words], idle.last_words


async def test_a_drafter_that_leaves_an_idle_verifier_leaves_no_trace(tiny_qwen2: Path):
    async with tiny_verifier(tiny_qwen2) as (verifier, address), Client(address) as client:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            async with child("drafter", ["drafter", "--model=lookup", f"--verifier={address}"]) as leaving:
                await described(client, drafters=1)
                await ended(leaving, number)
                assert silent(leaving), leaving.last_words
                await described(client, drafters=0)
        assert silent(verifier), verifier.last_words


async def test_another_services_address_is_told_for_what_it_is():
    async with coordinating() as (_, steering), serving(TextEngine()) as (_, verifying):
        drafter = await asyncio.to_thread(dragoman, "drafter", "--model=lookup", f"--verifier={steering}")
        assert drafter.returncode == 5 and not [noise for noise in NOISE if noise in drafter.stderr], drafter.stderr
        assert f"{steering} is a coordinator, and no verifier" in drafter.stderr and "--coordinator" in drafter.stderr
        member = await asyncio.to_thread(dragoman, "drafter", "--model=lookup", f"--coordinator={verifying}")
        assert member.returncode == 5 and f"{verifying} is a verifier, and no coordinator" in member.stderr
        async with Client(steering) as client:
            with pytest.raises(WrongServiceError, match="is a coordinator"):
                await client.complete(Prompt(text="a"))
        async with CoordinatorClient(verifying) as asking:
            with pytest.raises(WrongServiceError, match="is a verifier"):
                await asking.status()


async def test_a_lone_verifiers_text_is_written_on_when_it_is_back(tiny_qwen2: Path):
    asked = ("--prompt=The heron", "--max-tokens=400", "--temperature=0.8", "--seed=4", "--no-draft")
    async with tiny_verifier(tiny_qwen2) as (first, address):
        port = Address.parse(address, field="address").port
        whole = await asyncio.to_thread(dragoman, "generate", f"--verifier={address}", *asked)
        process = await asyncio.create_subprocess_exec(
            *hearing_signals("generate", f"--verifier={address}", *asked, "--resume-for=5m"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        begun = await process.stdout.readexactly(5)
        await first.stop()
    async with tiny_verifier(tiny_qwen2, port, "--verbose") as (second, _):
        rest, errors = await asyncio.wait_for(process.communicate(), 240)
        resumed = re.search(r"(\d+) bytes received before", second.last_words)
    assert process.returncode == 0, errors
    assert (begun + rest).decode() == whole.stdout and len(rest) > 5
    assert resumed and 5 <= int(resumed[1]) < len(whole.stdout), second.last_words


# ---- beginnings ---------------------------------------------------------------------------------------------------


async def test_while_the_model_is_loaded_all_wait():
    server = VerifierServer()
    address = await server.start(LOOPBACK)
    engine = TextEngine()
    async with drafting(address, TextDrafter()) as drafter, Client(address) as client, open_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        asked = health_pb2.HealthCheckRequest(service=SERVICE)
        assert (await health.Check(asked)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        async with Client(address, patience=0.0) as hasty:
            with pytest.raises(LoadingError, match="still loading its model"):
                await hasty.describe()
            with pytest.raises(LoadingError):
                await hasty.complete(Prompt(text="a story: "), max_tokens=8)
        waiting = asyncio.ensure_future(client.complete(Prompt(text="a story: "), max_tokens=8))
        looking = asyncio.ensure_future(client.describe())
        await asyncio.wait((waiting, looking), timeout=0.3)
        assert not waiting.done() and not looking.done() and not drafter.attached
        await server.open(verifier := Verifier(engine))
        assert (await waiting).completion_tokens == 8 and (await looking).model == engine.name
        await drafters(verifier, 1)
        assert (await health.Check(asked)).status == health_pb2.HealthCheckResponse.SERVING
        await server.stop(0.1)


async def test_a_server_that_never_got_its_model_stops():
    server = VerifierServer()
    address = await server.start(LOOPBACK)
    await server.stop()
    async with serving(TextEngine(), listen=address):
        pass


async def test_taken_ports_are_noticed_before_a_model_is_loaded():
    async with coordinating() as (_, address):
        model = "--model=no/such-model"  # would be noticed first, if it were looked for
        both = await asyncio.gather(
            asyncio.to_thread(dragoman, "verifier", model, f"--listen={address}"),
            asyncio.to_thread(dragoman, "verifier", model, "--listen=0", f"--metrics-port={address.port}"),
            asyncio.to_thread(dragoman, "verifier", model, f"--listen={free_port()}"),
            asyncio.to_thread(dragoman, "coordinator", f"--listen={address.port}"),
        )
        listening, metrics, unknown, steering = both
    assert listening.returncode == 4 and f"cannot listen at {address}: the port is in use" in listening.stderr
    assert metrics.returncode == 4 and "--metrics-port" in metrics.stderr
    assert unknown.returncode == 3 and "no/such-model" in unknown.stderr
    assert steering.returncode == 4 and "the port is in use" in steering.stderr
    for done in both:
        assert not [noise for noise in (*NOISE, "add_port.cc") if noise in done.stderr], done.stderr


async def test_ctrl_c_while_the_model_is_loaded(tmp_path: Path):
    asked = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()  # until it leaves
        writer.close()

    hub = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.sockets[0].getsockname()[1]}",
        "HF_HUB_OFFLINE": "0",
        "DRAGOMAN_HOME": str(tmp_path),
        "HF_HOME": str(tmp_path),
        "no_proxy": "127.0.0.1",
    }
    async with hub:
        process = await asyncio.create_subprocess_exec(
            *hearing_signals("verifier", "--model=an/unknown-model", f"--listen={(port := free_port())}"),
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
        try:
            await asyncio.wait_for(asked.wait(), 120)
            async with Client(f"127.0.0.1:{port}", patience=0.0) as client:
                with pytest.raises(LoadingError):
                    await client.describe()
            process.send_signal(signal.SIGINT)
            _, errors = await asyncio.wait_for(process.communicate(), 60)
        finally:
            if process.returncode is None:
                process.kill()
    assert process.returncode == 130 and not [noise for noise in NOISE if noise in errors.decode()], errors


async def test_two_verifiers_of_one_model_have_two_names(tiny_qwen2: Path):
    async with contextlib.AsyncExitStack() as stack:
        steering = await stack.enter_async_context(child("coordinator", ["coordinator", "--listen=127.0.0.1:0"]))
        join = f"--coordinator={(await steering.ready())['address']}"
        options = (f"--model={tiny_qwen2}", "--listen=127.0.0.1:0", "--dtype=float32", "--threads=1", join)
        for name, command in (("verifier", options), ("drafter", ("--model=lookup", join))):
            two = [await stack.enter_async_context(child(name, [name, *command])) for _ in range(2)]
            for started in two:
                await started.ready()
        client = await stack.enter_async_context(CoordinatorClient(join.partition("=")[2]))
        async with asyncio.timeout(60):
            while len(members := (await client.status()).members) < 4:
                await asyncio.sleep(0.05)
        names = {member.name for member in members}
        assert len(names) == 4
        for member in members:
            if member.HasField("verifier"):
                port = Address.parse(member.verifier.address, field="address").port
                assert member.name.endswith(f"/{member.model}:{port}")
                assert (await client.drain(member.name)).instance == member.instance


async def test_a_fleets_drafter_outlives_a_port_that_changes_hands(caplog: pytest.LogCaptureFixture):
    """The fleet may name an address that something else has for a moment: that is no mistake of the drafter's."""
    async with contextlib.AsyncExitStack() as other:
        _, address = await other.enter_async_context(coordinating())
        member = DrafterMember(TextDrafter(), Address("127.0.0.1", 1), instance="i", name="d", backoff=QUICK)
        running = asyncio.create_task(member.run())
        await asyncio.sleep(0)
        member.carry_out(pb.JoinResponse(attach=pb.AttachOrder(verifiers=[str(address)])))
        words = f"{address} is a coordinator, and no verifier (give it with --coordinator); dialling again"
        await eventually(lambda: words in caplog.text)
        await other.aclose()
        async with serving(TextEngine(), listen=address) as (verifier, _):
            await drafters(verifier, 1)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
