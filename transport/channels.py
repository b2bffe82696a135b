"""Channels to verifiers and coordinators, all made here, and whether they go through a proxy.

gRPC takes the proxy of ``grpc_proxy``, ``https_proxy`` or ``http_proxy`` for every address that ``no_grpc_proxy`` or
``no_proxy`` does not name, loopback included. Here loopback is always dialled directly, and so is everything else if
``DRAGOMAN_PROXY=off``; for the rest the environment counts, as gRPC reads it.
"""

from __future__ import annotations

import ipaddress
import os

import grpc

from speculation.errors import InputError
from transport.address import Address
from transport.grpc_options import channel_options

#: ``off``: no proxy, whatever the environment says. ``on``, the default: the environment's.
PROXY_VARIABLE = "DRAGOMAN_PROXY"
_SWITCH = {"": True, "on": True, "off": False}
# In gRPC's order: the first that is set counts, even if it is empty.
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")


def open_channel(address: Address) -> grpc.aio.Channel:
    """Within an event loop. Raises InputError for a bad ``DRAGOMAN_PROXY``."""
    return grpc.aio.insecure_channel(str(address), options=[*channel_options(), *proxy_options(address)])


def proxy_options(address: Address) -> list[tuple[str, int]]:
    """For a channel to ``address``. Raises InputError for a bad ``DRAGOMAN_PROXY``."""
    return [("grpc.enable_http_proxy", int(proxy_variable(address) is not None))]


def proxy_variable(address: Address) -> str | None:
    """The environment variable that names the proxy on the way to ``address``; None: it is dialled directly."""
    switch = os.environ.get(PROXY_VARIABLE, "")
    if switch.lower() not in _SWITCH:
        raise InputError(PROXY_VARIABLE, switch, "is neither on nor off", remedy="off: dial directly, without a proxy")
    if address.reaches_this_machine or not _SWITCH[switch.lower()]:
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
