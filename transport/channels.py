"""Channels to verifiers and coordinators, all made here: how they are protected, and whether they go through a proxy.

gRPC takes the proxy of ``grpc_proxy``, ``https_proxy`` or ``http_proxy`` for every address that ``no_grpc_proxy`` or
``no_proxy`` does not name, loopback included. Here loopback is always dialled directly, and so is everything else if
``DRAGOMAN_PROXY=off``; for the rest the environment counts, as gRPC reads it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import AsyncIterator

import grpc

from speculation.errors import InputError
from transport.address import Address
from transport.grpc_options import channel_options
from transport.pem_files import Pem, pem_files
from transport.security import Security
from transport.tokens import authorization_of, own_token

#: ``off``: no proxy, whatever the environment says. ``on``, the default: the environment's.
PROXY_VARIABLE = "DRAGOMAN_PROXY"
_SWITCH = {"": True, "on": True, "off": False}
# In gRPC's order: the first that is set counts, even if it is empty.
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")


def open_channel(
    address: Address,
    security: Security | None = None,
    *,
    who: str = "verifier",
) -> grpc.aio.Channel:
    """One that tries to connect at once, whatever failed before. Within an event loop. ``security`` None: as the
    environment says. ``who`` is to be there.

    Raises InputError for a bad ``DRAGOMAN_PROXY``, for files that cannot be used, and for another machine in plaintext
    unless that is allowed.
    """
    security = security or Security.from_environment()
    return _open(address, _pem_for(address, security, who), security, shares=False)


def check_dialling(address: Address, security: Security, *, who: str) -> None:
    """Raises the InputError that ``open_channel`` would, before anything that takes long."""
    _pem_for(address, security, who)


def _pem_for(address: Address, security: Security, who: str) -> Pem | None:
    """None: in plaintext."""
    security.check_dialling(address, who=who)
    if security.dials_tls:
        own_token(security.token_file)
    return pem_files(security).newest() if security.dials_tls else None


def _open(address: Address, pem: Pem | None, security: Security, *, shares: bool = True) -> grpc.aio.Channel:
    options = [*channel_options(shares=shares), *proxy_options(address)]
    if pem is None:
        return grpc.aio.insecure_channel(str(address), options=options)
    credentials = grpc.ssl_channel_credentials(pem.authority, pem.key, pem.certificate)
    if own_token(security.token_file) is not None:
        credentials = grpc.composite_channel_credentials(
            credentials, grpc.metadata_call_credentials(_BearerToken(security))
        )
    return grpc.aio.secure_channel(str(address), credentials, options=options)


class _BearerToken(grpc.AuthMetadataPlugin):
    """Sends the token as it is now with every call; gRPC does so in TLS alone."""

    def __init__(self, security: Security) -> None:
        self._security = security

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        try:
            secret = own_token(self._security.token_file)
        except InputError as error:
            callback((), error)
            return
        callback((("authorization", authorization_of(secret)),) if secret is not None else (), None)


class _Counted:
    """A channel, and how many calls use it."""

    def __init__(self, channel: grpc.aio.Channel, pem: Pem | None) -> None:
        self.channel = channel
        self.pem = pem
        self.calls = 0


class Connection:
    """A channel for many calls, over months: opened anew when the files of its certificates have changed.

    Calls that run go on over the channel that they began with. Within an event loop; raises what ``open_channel`` does.
    """

    def __init__(self, address: Address, security: Security | None = None, *, who: str) -> None:
        self.address = address
        self.security = security or Security.from_environment()
        self.who = who
        self._newest = self._open()
        self._replaced: set[_Counted] = set()

    def _open(self) -> _Counted:
        pem = _pem_for(self.address, self.security, self.who)
        return _Counted(_open(self.address, pem, self.security), pem)

    @contextlib.asynccontextmanager
    async def channel(self) -> AsyncIterator[grpc.aio.Channel]:
        """For one call, to its end."""
        used = self._newest
        if used.pem is not None and pem_files(self.security).newest() is not used.pem:
            self._replaced.add(used)
            self._newest = used = self._open()
            await self._close_idle()
        used.calls += 1
        try:
            yield used.channel
        finally:
            used.calls -= 1
            await self._close_idle()

    async def move(self, address: Address) -> None:
        """Dial this address from now on. Raises what ``open_channel`` raises, and stays where it was."""
        before = self.address
        self.address = address
        try:
            moved = self._open()
        except InputError:
            self.address = before
            raise
        self._replaced.add(self._newest)
        self._newest = moved
        await self._close_idle()

    async def _close_idle(self) -> None:
        for idle in [one for one in self._replaced if not one.calls]:
            self._replaced.discard(idle)
            await idle.channel.close()

    async def close(self) -> None:
        """Calls that run end with it."""
        for one in (self._newest, *self._replaced):
            await one.channel.close()


def proxy_options(address: Address) -> list[tuple[str, int]]:
    """For a channel to ``address``. Raises InputError for a bad ``DRAGOMAN_PROXY``."""
    return [("grpc.enable_http_proxy", int(proxy_variable(address) is not None))]


def is_always_direct(address: Address) -> bool:
    """Whether no proxy of the environment's is asked: on this machine, or with ``DRAGOMAN_PROXY=off``. Raises
    InputError for another value of that."""
    switch = os.environ.get(PROXY_VARIABLE, "")
    if switch.lower() not in _SWITCH:
        raise InputError(PROXY_VARIABLE, switch, "is neither on nor off", remedy="off: dial directly, without a proxy")
    return address.reaches_this_machine or not _SWITCH[switch.lower()]


def proxy_variable(address: Address) -> str | None:
    """The environment variable that names the proxy on the way to ``address``; None: it is dialled directly."""
    if is_always_direct(address):
        return None
    variable = next((name for name in _PROXIES if name in os.environ), None)
    if variable is None or not os.environ[variable]:
        return None
    exceptions = next((os.environ[name] for name in _EXCEPTIONS if name in os.environ), "")
    return None if any(_names(entry.strip(), address.host) for entry in exceptions.split(",")) else variable


def _names(entry: str, host: str) -> bool:
    """Whether an entry of ``no_proxy`` names the host: all, a network, or a domain with what is below it."""
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        domain = entry.lstrip(".").lower()
        return bool(domain) and (host.lower() == domain or host.lower().endswith(f".{domain}"))
