"""Proxies of the environment, and addresses: what is dialled directly, what goes through a proxy, what is refused."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from dragoman.client import Client
from dragoman.coordinator_client import CoordinatorClient
from speculation.errors import ConnectionFailedError, InputError
from speculation.protocol.messages import Prompt
from tests.support.coordinators import coordinating, joining, target
from tests.support.proxies import VARIABLES, forget_proxies
from tests.support.service_drivers import drafters, drafting, eventually, serving
from tests.support.text_engine import TextEngine
from transport.address import Address
from transport.channels import proxy_variable
from transport.security import Security

PLAINTEXT = Security(allow_plaintext=True)


class Proxy:
    """A TCP server that notes what it is asked for, and refuses."""

    def __init__(self) -> None:
        self.address = ""
        self.asked: list[str] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append((await reader.readline()).decode())
        writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_proxies(monkeypatch)


@contextlib.asynccontextmanager
async def proxying(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    proxy = Proxy()
    server = await asyncio.start_server(proxy.answer, "127.0.0.1", 0)
    proxy.address = "http://{}:{}".format(*server.sockets[0].getsockname()[:2])
    for variable in VARIABLES:
        monkeypatch.setenv(variable, proxy.address)
    async with server:
        yield proxy


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_loopback_never_goes_through_a_proxy(monkeypatch: pytest.MonkeyPatch, name: str):
    async with proxying(monkeypatch) as proxy, serving(TextEngine()) as (verifier, address):
        at = Address(name, address.port)
        async with drafting(at), Client(at) as client:
            await drafters(verifier, 1)
            assert (await client.complete(Prompt(text="a story: "), max_tokens=8)).completion_tokens == 8
        async with coordinating() as (_, steering), joining(steering, target()) as link:
            await eventually(lambda: link.joined)
            async with CoordinatorClient(Address(name, steering.port)) as asking:
                assert (await asking.status()).members
    assert proxy.asked == []


async def test_another_name_goes_through_the_proxy_unless_it_is_excepted(monkeypatch: pytest.MonkeyPatch):
    async with proxying(monkeypatch) as proxy:
        async with Client("gpu-box.example:50061", security=PLAINTEXT) as client:
            with pytest.raises(ConnectionFailedError) as caught:
                await client.describe()
        assert proxy.asked and all(line == "CONNECT gpu-box.example:50061 HTTP/1.1\r\n" for line in proxy.asked)
        # Why a proxy was asked at all, and what to do about it.
        assert "through the proxy of grpc_proxy" in str(caught.value) and "DRAGOMAN_PROXY=off" in str(caught.value)
    # Another one: the first may still be asked by what the client began before it was closed.
    async with proxying(monkeypatch) as proxy:
        for variable, value in (("no_proxy", "gpu-box.example"), ("DRAGOMAN_PROXY", "off")):
            with monkeypatch.context() as patch:
                patch.setenv(variable, value)
                async with Client("gpu-box.example:50061", security=PLAINTEXT) as client:
                    with pytest.raises(ConnectionFailedError):
                        await client.describe()
        assert proxy.asked == []


@pytest.mark.parametrize(
    "host, environment, variable",
    [
        ("box.example", {}, None),
        ("box.example", {"http_proxy": "http://p"}, "http_proxy"),
        ("box.example", {"http_proxy": "http://p", "https_proxy": "http://q"}, "https_proxy"),
        ("box.example", {"http_proxy": "http://p", "grpc_proxy": ""}, None),
        ("box.example", {"http_proxy": "http://p", "no_proxy": "other, .example"}, None),
        ("box.example", {"http_proxy": "http://p", "no_proxy": "*"}, None),
        ("box.example", {"http_proxy": "http://p", "no_proxy": "ample"}, "http_proxy"),
        ("box.example", {"http_proxy": "http://p", "no_proxy": "box.example", "no_grpc_proxy": "x"}, "http_proxy"),
        ("10.1.2.3", {"http_proxy": "http://p", "no_proxy": "10.0.0.0/8"}, None),
        ("11.1.2.3", {"http_proxy": "http://p", "no_proxy": "10.0.0.0/8"}, "http_proxy"),
        ("box.example", {"http_proxy": "http://p", "DRAGOMAN_PROXY": "Off"}, None),
        ("127.8.0.1", {"http_proxy": "http://p"}, None),
        ("::1", {"http_proxy": "http://p"}, None),
        ("::ffff:127.0.0.1", {"http_proxy": "http://p"}, None),
        ("0.0.0.0", {"http_proxy": "http://p"}, None),
        ("LocalHost", {"http_proxy": "http://p"}, None),
    ],
)
def test_which_proxy_counts(
    monkeypatch: pytest.MonkeyPatch, host: str, environment: dict[str, str], variable: str | None
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_variable(Address(host, 50061)) == variable


def test_a_bad_switch_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DRAGOMAN_PROXY", "none")
    with pytest.raises(InputError, match="DRAGOMAN_PROXY='none'"):
        proxy_variable(Address("box.example", 1))


@pytest.mark.parametrize(
    "text, address",
    [
        ("53002", "127.0.0.1:53002"),
        (" 53002 ", "127.0.0.1:53002"),
        ("box", "box:50061"),
        ("box:1", "box:1"),
        ("[::1]", "[::1]:50061"),
        ("[::1]:7", "[::1]:7"),
        ("[fe80::1%eth0]:7", "[fe80::1%eth0]:7"),
    ],
)
def test_addresses(text: str, address: str):
    assert str(Address.parse(text, field="listen")) == address


@pytest.mark.parametrize("text", ["::1", "fe80::1:50061", "[box]:1x", "box:", "box:0", "70000", "0", ":5", "", "a:b:1"])
def test_no_addresses(text: str):
    with pytest.raises(InputError, match="listen="):
        Address.parse(text, field="listen")


def test_a_port_as_long_as_a_book_is_no_port():
    for text in ("9" * 5000, "box:" + "9" * 5000):
        with pytest.raises(InputError, match="no valid port"):
            Address.parse(text, field="listen")
