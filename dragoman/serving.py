"""`dragoman verifier`, `coordinator` and `gateway`: load, serve until a signal, say when ready."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dragoman.metrics_page import metrics_page
from dragoman.options import LOCAL_VERIFIER
from dragoman.terminal import err
from speculation.errors import InputError
from transport.address import COORDINATOR_PORT, DEFAULT_PORT, HEALTH_PORT, Address
from transport.pem_files import pem_files
from transport.security import Security
from transport.servers import check_bindable
from transport.tokens import read_tokens

if TYPE_CHECKING:
    from coordinator.config import CoordinatorConfig
    from gateway.settings import GatewaySettings

    # These bring torch along, which a coordinator does without.
    from verifier_service.engine import Engine
    from verifier_service.fleet_member import VerifierMember
    from verifier_service.server import VerifierServer
    from verifier_service.settings import VerifierSettings
    from verifier_service.verifier import Verifier


def listen_address(listen: str, security: Security, *, default_port: int = DEFAULT_PORT) -> Address:
    """Raises InputError for an address that others can reach in plaintext, unless that is asked for, and for files of
    TLS that cannot be used. Whether the port is free is asked once every option is read: a mistake in what was written
    is told before what the machine happens to be like."""
    address = Address.parse(listen, field="listen", allow_port_zero=True, default_port=default_port)
    security.check_listening(address)
    if security.serves_tls:
        pem_files(security)
    if security.tokens is not None:
        read_tokens(Path(security.tokens))
    return address


def health_address(given: str | None) -> Address | None:
    """Where health checks alone are answered, for `--health-listen`. Raises what ``listen_address`` raises."""
    if given is None:
        return None
    return Address.parse(given, field="health-listen", default_port=HEALTH_PORT)


def dialled_address(verifier: str | None, coordinator: str | None, security: Security) -> Address:
    """Of the coordinator, or of the verifier, without either the one of this machine. Raises InputError for two
    addresses, or one that may not be dialled so."""
    from transport.channels import check_dialling

    if verifier is not None and coordinator is not None:
        raise InputError("verifier", verifier, "comes with --coordinator as well", remedy="give one of the two")
    field, address = ("verifier", verifier or LOCAL_VERIFIER) if coordinator is None else ("coordinator", coordinator)
    port = COORDINATOR_PORT if coordinator is not None else DEFAULT_PORT
    dialled = Address.parse(address, field=field, default_port=port)
    check_dialling(dialled, security, who=field)
    return dialled


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


def check_ports(
    listen: Address | None = None, *, health_listen: Address | None = None, metrics_port: int | None = None
) -> None:
    """Raises ConnectionFailedError if one of them cannot be listened at: before anything that takes long is imported
    or loaded."""
    if listen is not None:
        check_bindable(listen)
    if listen is not None and metrics_port is not None:
        check_bindable(Address(listen.host, metrics_port), option="--metrics-port")
    if health_listen is not None:
        check_bindable(health_listen, option="--health-listen")


def new_instance() -> str:
    """Tells this process apart from others of its name."""
    return secrets.token_hex(8)


def default_name(model: str, apart: str) -> str:
    """``apart``: what tells this process from others with the same model on this machine."""
    return f"{socket.gethostname()}/{model}"[:190] + apart[:10]


def say_ready(words: str, ready_json: bool, **facts: Any) -> None:
    """To people, or to a parent process with these facts."""
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
    health_listen: Address | None = None,
    security: Security | None = None,
    ready_json: bool = False,
) -> None:
    """Serve until SIGINT or SIGTERM, then let texts end by themselves for ``settings.grace``, then hand them over.

    The ports are taken before ``load`` is called, which takes minutes for a large model; until it returns, whoever
    dials is told to try again. ``security`` None: as the environment says. Raises ConnectionFailedError if a port is
    taken, and what ``load`` raises.
    """
    check_ports(address, health_listen=health_listen, metrics_port=metrics_port)
    from verifier_service.fleet_member import VerifierMember
    from verifier_service.server import VerifierServer
    from verifier_service.verifier_choice import verifier_of

    async def bind() -> tuple[VerifierServer, Address]:
        server = VerifierServer(security=security, health_listen=health_listen)
        return server, await server.start(address)

    with asyncio.Runner() as runner, metrics_page(address.host, metrics_port, runner.get_loop()) as instruments_of:
        server, bound = runner.run(bind())
        try:
            with _running(runner.get_loop()):
                engine = load()
            name = (membership.name if membership is not None else None) or default_name(engine.name, f":{bound.port}")
            verifier = verifier_of(engine, settings, instruments_of(engine.name, name))
            words = f"verifier of {engine.name} ({engine.dtype_name}, {engine.device_name}) ready at {bound}"
            member = None
            if membership is not None:
                member = VerifierMember(
                    verifier,
                    membership.coordinator,
                    instance=new_instance(),
                    name=name,
                    advertised=membership.advertise or str(bound),
                    security=security,
                )
        except BaseException:
            runner.run(server.stop())
            raise
        say = functools.partial(say_ready, words, ready_json, address=str(bound))
        runner.run(_serve_and_join(server, verifier, member, grace=settings.grace, on_ready=say))


async def _serve_and_join(
    server: VerifierServer,
    verifier: Verifier,
    member: VerifierMember | None,
    *,
    grace: float,
    on_ready: Callable[[], None],
) -> None:
    """Until a signal; a member of a fleet from when it is ready."""
    from verifier_service.server import serve_until_signal

    joining: list[asyncio.Task[None]] = []

    def ready() -> None:
        on_ready()
        if member is not None:
            joining.append(asyncio.get_running_loop().create_task(member.run()))

    try:
        await serve_until_signal(server, verifier, on_ready=ready, grace=grace)
    finally:
        for task in joining:
            task.cancel()
        await asyncio.gather(*joining, return_exceptions=True)


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


def serve_coordinator(
    config: CoordinatorConfig,
    address: Address,
    *,
    health_listen: Address | None = None,
    security: Security | None = None,
    ready_json: bool = False,
) -> None:
    """Steer the fleet until SIGINT or SIGTERM."""
    from coordinator.server import serve_until_signal

    def on_ready(bound: Address) -> None:
        say_ready(f"coordinator ready at {bound}", ready_json, address=str(bound))

    asyncio.run(serve_until_signal(config, address, security=security, health_listen=health_listen, on_ready=on_ready))


def serve_gateway(
    verifier: str | None,
    coordinator: str | None,
    address: Address,
    settings: GatewaySettings,
    *,
    security: Security,
    ready_json: bool = False,
) -> None:
    """Serve HTTP in front of the verifier or the coordinator's fleet until SIGINT or SIGTERM.

    Raises InputError for addresses that cannot be, ConnectionFailedError if the port is taken.
    """
    from dragoman.gateway_backend import fleet_backend, verifier_backend
    from gateway.server import GatewayServer, serve_until_signal

    # Without an authority what it dials is in plaintext: the certificate is for those who dial it.
    dialling = security if security.dials_tls else security.model_copy(update={"tls_cert": None, "tls_key": None})
    dialled = dialled_address(verifier, coordinator, dialling)

    scheme = "https" if security.serves_tls else "http"

    def on_ready(bound: Address) -> None:
        say_ready(f"gateway ready at {scheme}://{bound}", ready_json, address=str(bound))

    async def serve() -> None:
        connect = fleet_backend if coordinator is not None else verifier_backend
        async with connect(dialled, security=dialling) as backend:
            server = GatewayServer(backend, settings, security=security)
            await serve_until_signal(server, address, on_ready=on_ready)

    asyncio.run(serve())
