"""`dragoman doctor --connect ADDRESS`: how far one gets, step by step, and what is in the way."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import statistics
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console
from rich.text import Text

from dragoman.client import Client
from dragoman.coordinator_client import CoordinatorClient
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import AccessError, ConnectionFailedError, DragomanError, WrongServiceError
from transport.address import Address
from transport.channels import check_dialling, open_channel, proxy_variable
from transport.durations import show_duration
from transport.pem_files import expiry
from transport.security import Security
from transport.status import explain
from transport.tls_errors import TRY_SECONDS, access_error, shake_hands
from transport.version import VERSION

#: Round trips that are measured.
_TRIPS: Final = 9
_ANSWER_SECONDS: Final = 5.0
#: Bytes that are sent to measure the bandwidth, each time four times as many, until they take so many seconds and so
#: many round trips. A message has 4 MiB at most, and proxies often take 1 MiB.
_FIRST_PROBE, _LAST_PROBE = 15 << 10, 960 << 10
_PROBE_SECONDS, _PROBE_TRIPS = 0.1, 5
_PROBE_LIMIT_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Step:
    """One step that was gone. ``error``: what was in the way; then there is none after it."""

    name: str
    words: str = ""
    error: DragomanError | None = None


def run_connect(address: Address, security: Security, console: Console) -> None:
    """Go the steps and print each as it is gone. Raises the error of the one that failed."""
    asyncio.run(_show(address, security, console))


async def _show(address: Address, security: Security, console: Console) -> None:
    async with contextlib.aclosing(steps(address, security)) as going:
        async for step in going:
            verdict, style = ("ok", "green") if step.error is None else ("FAILED", "bold red")
            line = Text.assemble(f"{step.name:<11}", (f"{verdict:<7}", style), step.words)
            console.print(line, soft_wrap=not console.is_terminal)
            if step.error is not None:
                raise step.error


async def steps(address: Address, security: Security) -> AsyncGenerator[Step, None]:
    """Until one fails, or all are gone: settings, DNS, TCP, TLS, identity, service, version, round trip,
    bandwidth."""
    try:
        for going in (_settings, _names, _tcp, _tls, _service, _version, _round_trip, _bandwidth):
            async for step in going(address, security):
                yield step
    except DragomanError as error:
        yield Step(_NAMES[going], error.message, error)


async def _settings(address: Address, security: Security) -> AsyncIterator[Step]:
    check_dialling(address, security, who="service")
    mode = "mutual TLS" if security.tls_cert and security.dials_tls else "TLS" if security.dials_tls else "plaintext"
    through = proxy_variable(address)
    yield Step("settings", f"{mode}, {f'through the proxy of {through}' if through else 'dialled directly'}")


async def _names(address: Address, security: Security) -> AsyncIterator[Step]:
    if proxy_variable(address) is not None:  # the proxy looks it up
        return
    try:
        ipaddress.ip_address(address.host)
        yield Step("DNS", "not needed for an IP address")
        return
    except ValueError:
        pass
    try:
        found = await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        words = f"{address.host} has no address: {error.strerror}"
        raise ConnectionFailedError(words, remedy="check the name, and the DNS of this machine") from error
    yield Step("DNS", f"{address.host} is {', '.join(dict.fromkeys(str(one[4][0]) for one in found))}")


async def _tcp(address: Address, security: Security) -> AsyncIterator[Step]:
    if proxy_variable(address) is not None:
        return
    started = time.perf_counter()
    try:
        async with asyncio.timeout(TRY_SECONDS):
            _, writer = await asyncio.open_connection(address.host, address.port)
    except TimeoutError as error:
        words = f"nothing answers at {address} within {TRY_SECONDS:g} s"
        raise ConnectionFailedError(words, remedy="check the address, and the firewalls on the way") from error
    except OSError as error:
        words = f"no connection to {address}: {os.strerror(error.errno) if error.errno else error}"
        raise ConnectionFailedError(words, remedy="start the service there, or check the port") from error
    took = time.perf_counter() - started
    writer.close()
    yield Step("TCP", f"connected in {show_duration(took)}")


async def _tls(address: Address, security: Security) -> AsyncIterator[Step]:
    if proxy_variable(address) is not None:
        return
    try:
        found = await shake_hands(address, security)
    except OSError as error:
        raise ConnectionFailedError(f"{address} does not shake hands: {error}", remedy="try again") from error
    if found.fault is not None:
        raise access_error(found.fault, address, security, who="service")
    if not security.dials_tls:
        yield Step("TLS", "none on either side: text is sent in plaintext")
        return
    yield Step("TLS", found.words)
    certificate = found.certificate or {}
    yield Step("identity", f"it is {_holder(certificate)}, until {certificate.get('notAfter', 'ever')}")
    if security.tls_cert is not None:
        yield Step(
            "identity", f"this side shows {security.tls_cert}{'' if not expiry(security.tls_cert) else ', expired'}"
        )


def _holder(certificate: Mapping[str, Any]) -> str:
    """By the URI, or the name that is there for people."""
    uris = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
    names = [value for part in certificate.get("subject", ()) for name, value in part if name == "commonName"]
    return next(iter([*uris, *names]), "a server without a name")


async def _service(address: Address, security: Security) -> AsyncIterator[Step]:
    kind = await _kind(address, security)
    yield Step("service", f"a {kind}")


async def _kind(address: Address, security: Security) -> str:
    """Verifier or coordinator. Raises ConnectionFailedError, AccessError, WrongServiceError."""
    async with open_channel(address, security) as channel:
        for kind in ("verifier", "coordinator"):
            name = pb.DESCRIPTOR.services_by_name[f"{kind.capitalize()}Service"].full_name
            try:
                request = health_pb2.HealthCheckRequest(service=name)
                await health_pb2_grpc.HealthStub(channel).Check(request, timeout=_ANSWER_SECONDS)
                return kind
            except grpc.RpcError as error:
                if getattr(error, "code", lambda: None)() is not grpc.StatusCode.NOT_FOUND:
                    raise await explain(error, channel, address, who=kind, security=security) from error
    raise WrongServiceError(f"what listens at {address} is no Dragoman service", remedy="check the port")


async def _version(address: Address, security: Security) -> AsyncIterator[Step]:
    try:
        if await _kind(address, security) == "verifier":
            async with Client(address, patience=0.0, security=security) as client:
                status = await client.describe()
            words = f"Dragoman {status.version}, serves {status.model}"
        else:
            async with CoordinatorClient(address, security=security) as asking:
                words = f"Dragoman {(await asking.status()).version}"
    except AccessError as error:  # of its role: a drafter may not ask, and need not
        yield Step("version", f"not told to this certificate: {error.message}")
        return
    yield Step("version", f"{words}; here is {VERSION}")


async def _round_trip(address: Address, security: Security) -> AsyncIterator[Step]:
    async with open_channel(address, security) as channel:
        stub, trips = health_pb2_grpc.HealthStub(channel), []
        for _ in range(_TRIPS + 1):  # the first one connects
            started = time.perf_counter()
            try:
                await stub.Check(health_pb2.HealthCheckRequest(), timeout=_ANSWER_SECONDS)
            except grpc.RpcError as error:
                raise await explain(error, channel, address, who="service", security=security) from error
            trips.append(time.perf_counter() - started)
    yield Step("round trip", f"{show_duration(statistics.median(trips[1:]))}, the median of {_TRIPS}")


async def _bandwidth(address: Address, security: Security) -> AsyncIterator[Step]:
    """Towards the service. What is sent is the name of a service that nobody has, longer and longer: a connection
    begins slowly, so only what takes several round trips tells the bandwidth."""
    async with open_channel(address, security) as channel:
        stub, size = health_pb2_grpc.HealthStub(channel), _FIRST_PROBE
        try:
            trip = statistics.median([await _sending(stub, 0) for _ in range(_TRIPS)])
            enough = max(_PROBE_SECONDS, _PROBE_TRIPS * trip)
            while (took := max(await _sending(stub, size) - trip, 1e-6)) < enough and size < _LAST_PROBE:
                size *= 4
            took = min(took, max(await _sending(stub, size) - trip, 1e-6))
        except grpc.RpcError as error:
            why = getattr(error, "details", str)() or type(error).__name__
            yield Step("bandwidth", f"not measured with {size >> 10} KiB: {why}")
            return
    words = f"{8 * size / took / 1e6:.3g} Mbit/s towards the service: {size >> 10} KiB in {show_duration(took)}"
    yield Step("bandwidth", words if took >= enough / 2 else f"at least {words}")


async def _sending(stub: health_pb2_grpc.HealthStub, size: int) -> float:
    """Seconds until so many bytes are there, and the answer is here. Raises RpcError."""
    started = time.perf_counter()
    try:
        await stub.Check(health_pb2.HealthCheckRequest(service="x" * size), timeout=_PROBE_LIMIT_SECONDS)
    except grpc.RpcError as error:
        if getattr(error, "code", lambda: None)() is not grpc.StatusCode.NOT_FOUND:
            raise
    return time.perf_counter() - started


_NAMES: Final = {
    _settings: "settings",
    _names: "DNS",
    _tcp: "TCP",
    _tls: "TLS",
    _service: "service",
    _version: "version",
    _round_trip: "round trip",
    _bandwidth: "bandwidth",
}
