"""`dragoman verifier`, `dragoman drafter` and `dragoman coordinator`: load, serve until a signal, say when ready."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drafter_service.draft_source import Drafter
from dragoman.terminal import err
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import ConnectionFailedError, InputError
from transport.address import COORDINATOR_PORT, DEFAULT_PORT, Address
from transport.pem_files import pem_files
from transport.security import Security
from transport.signals import until_signal
from transport.tokens import read_tokens

if TYPE_CHECKING:
    from coordinator.config import CoordinatorConfig
    from verifier_service.engine import Engine  # brings torch along, which a coordinator does without
    from verifier_service.metrics import Instruments
    from verifier_service.settings import VerifierSettings


def listen_address(listen: str, security: Security, *, default_port: int = DEFAULT_PORT) -> Address:
    """Raises InputError for an address that others can reach in plaintext, unless that is asked for, and for files of
    TLS that cannot be used."""
    address = Address.parse(listen, field="listen", allow_port_zero=True, default_port=default_port)
    security.check_listening(address)
    if security.serves_tls:
        pem_files(security)
    if security.tokens is not None:
        read_tokens(Path(security.tokens))
    return address


@dataclass(frozen=True, slots=True)
class Membership:
    """Of a verifier in a fleet. ``name`` and ``advertise`` may be None: then they follow from what it serves."""

    coordinator: Address
    name: str | None
    advertise: str | None


def fleet_membership(
    coordinator: str | None, name: str | None, listen: Address, advertise: str | None
) -> Membership | None:
    """Raises InputError if drafters could not find the verifier."""
    if coordinator is None:
        return None
    if advertise is not None:
        if advertise.strip().isdecimal():
            remedy = "write host:port, as the drafters reach it"
            raise InputError("advertise", advertise, "names no host", remedy=remedy)
        advertise = str(Address.parse(advertise, field="advertise"))
    elif listen.every_interface:
        raise InputError(
            "listen",
            str(listen),
            "is every address of this machine, so the fleet cannot dial it",
            remedy="add --advertise host:port, as the drafters reach it",
        )
    return Membership(Address.parse(coordinator, field="coordinator", default_port=COORDINATOR_PORT), name, advertise)


def new_instance() -> str:
    """Tells this process apart from others of its name."""
    return secrets.token_hex(8)


def default_name(model: str, apart: str) -> str:
    """``apart``: what tells this process from others with the same model on this machine."""
    return f"{socket.gethostname()}/{model}"[:190] + apart[:10]


def _say_ready(words: str, ready_json: bool, **facts: Any) -> None:
    if ready_json:
        print(json.dumps({"ready": True, **facts}), flush=True)
    else:
        err.print(words, highlight=False, soft_wrap=True)


def serve_verifier(
    load: Callable[[], Engine],
    address: Address,
    settings: VerifierSettings,
    *,
    membership: Membership | None = None,
    metrics_port: int | None = None,
    security: Security | None = None,
    ready_json: bool = False,
) -> None:
    """Serve until SIGINT or SIGTERM, then let texts end by themselves for ``settings.grace``, then hand them over.

    The ports are taken before ``load`` is called, which takes minutes for a large model; until it returns, whoever
    dials is told to try again.

    ``security`` None: as the environment says. Raises ConnectionFailedError if a port is taken, and what ``load``
    raises.
    """
    from verifier_service.fleet_member import VerifierMember
    from verifier_service.server import VerifierServer, serve_until_signal
    from verifier_service.verifier import Verifier

    async def bind() -> tuple[VerifierServer, Address]:
        server = VerifierServer(security=security)
        return server, await server.start(address)

    async def serve(verifier: Verifier) -> None:
        try:
            await serve_until_signal(server, verifier, on_ready=lambda: on_ready(verifier), grace=settings.grace)
        finally:
            for task in joining:
                task.cancel()
            await asyncio.gather(*joining, return_exceptions=True)

    def on_ready(verifier: Verifier) -> None:
        words = f"verifier of {engine.name} ({engine.dtype_name}, {engine.device_name}) ready at {bound}"
        _say_ready(words, ready_json, address=str(bound))
        if membership is not None:
            member = VerifierMember(
                verifier,
                membership.coordinator,
                instance=new_instance(),
                name=name,
                advertised=membership.advertise or str(bound),
                security=security,
            )
            joining.append(asyncio.get_running_loop().create_task(member.run()))

    joining: list[asyncio.Task[None]] = []
    with asyncio.Runner() as runner, _metrics_at(address.host, metrics_port, runner.get_loop()) as instruments_of:
        server, bound = runner.run(bind())
        try:
            with _running(runner.get_loop()):
                engine = load()
            name = (membership.name if membership is not None else None) or default_name(engine.name, f":{bound.port}")
            verifier = Verifier(
                engine,
                plan=settings.plan.plan(),
                adaptive=settings.adaptive,
                lookup=settings.lookup,
                max_sessions=settings.max_sessions,
                max_sessions_each=settings.max_sessions_each,
                trust=settings.trust,
                instruments=instruments_of(engine.name, name),
            )
        except BaseException:
            runner.run(server.stop())
            raise
        runner.run(serve(verifier))


@contextlib.contextmanager
def _running(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """The loop answers calls in a thread while this one, which hears Ctrl-C, is busy; then it is this one's again."""
    thread = threading.Thread(target=loop.run_forever, name="answering", daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


@contextlib.contextmanager
def _metrics_at(
    host: str, port: int | None, loop: asyncio.AbstractEventLoop
) -> Iterator[Callable[[str, str], Instruments | None]]:
    """Prometheus metrics served at the port: of the process and its event loop at once, of the verifier from when the
    function that it gives is called with the names of model and verifier.

    Raises ConnectionFailedError.
    """
    if port is None:
        yield lambda model, name: None
        return
    from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, start_http_server

    from verifier_service.metrics import PREFIX, PrometheusInstruments

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    tasks = Gauge(f"{PREFIX}event_loop_tasks", "Tasks of the event loop.", registry=registry)
    tasks.set_function(lambda: len(asyncio.all_tasks(loop)))
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise ConnectionFailedError(
            f"cannot serve metrics at {Address(host, port)}: {error.strerror or error}",
            remedy="give another --metrics-port",
        ) from error

    try:
        yield lambda model, name: PrometheusInstruments(registry, model, name)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def model_and_speed(model: str, seconds_per_token: float) -> str:
    """Say "smollm2 (3.1 ms a token)"; the name alone where a token takes no time to speak of (a lookup)."""
    milliseconds = f"{seconds_per_token * 1000:.1f}"
    return model if milliseconds == "0.0" else f"{model} ({milliseconds} ms a token)"


def serve_drafter(
    drafter: Drafter,
    dialled: Address,
    *,
    fleet: bool = False,
    name: str | None = None,
    max_sessions: int = 4,
    security: Security | None = None,
    ready_json: bool = False,
) -> None:
    """Draft until SIGINT or SIGTERM; dials again whenever the link ends.

    ``dialled``: the verifier, or with ``fleet`` the coordinator, which names the verifiers.
    """
    from drafter_service.client import DrafterClient
    from drafter_service.fleet_member import DrafterMember

    seconds_per_token = drafter.measure()
    instance = new_instance()
    speed = f"with {model_and_speed(drafter.model_name, seconds_per_token)}"

    def on_connected(welcome: pb.Welcome) -> None:
        words = f"drafting for {welcome.model} at {dialled} {speed}"
        _say_ready(words, ready_json, verifier=str(dialled), seconds_per_token=seconds_per_token)

    def on_joined(_: pb.Joined) -> None:
        words = f"joined the fleet of the coordinator at {dialled} {speed}"
        _say_ready(words, ready_json, coordinator=str(dialled), seconds_per_token=seconds_per_token)

    common: dict[str, Any] = {
        "name": name or default_name(drafter.model_name, f"#{instance[:4]}"),
        "instance": instance,
        "max_sessions": max_sessions,
        "seconds_per_token": seconds_per_token,
        "security": security,
    }
    client: DrafterClient | DrafterMember
    if fleet:
        client = DrafterMember(drafter, dialled, on_joined=on_joined, **common)
    else:
        client = DrafterClient(drafter, dialled, on_connected=on_connected, **common)
    asyncio.run(until_signal(client.run()))


def serve_coordinator(
    config: CoordinatorConfig, address: Address, *, security: Security | None = None, ready_json: bool = False
) -> None:
    """Steer the fleet until SIGINT or SIGTERM."""
    from coordinator.server import serve_until_signal

    def on_ready(bound: Address) -> None:
        _say_ready(f"coordinator ready at {bound}", ready_json, address=str(bound))

    asyncio.run(serve_until_signal(config, address, security=security, on_ready=on_ready))
