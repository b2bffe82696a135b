"""Two hosts on one machine: network namespaces for the cloud and for the edge, with network stacks of their own.

The namespace that one starts from lies between them and routes nothing: the only way from the edge to the cloud is the
fault proxy there. Needs root and the ``ip`` command.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from speculation.errors import InputError

#: Addresses from the range that RFC 2544 sets aside for benchmarks: no real host has them.
_NETWORKS = {"cloud": "198.18.61", "edge": "198.18.62"}


@dataclass(frozen=True, slots=True)
class Host:
    """``address``: its own. ``outside``: that of the starting namespace, as it sees it."""

    namespace: str
    address: str
    outside: str

    @property
    def within(self) -> tuple[str, ...]:
        """What to put before a command to run it there."""
        return ("ip", "netns", "exec", self.namespace)


@dataclass(frozen=True, slots=True)
class Hosts:
    cloud: Host
    edge: Host


def possible() -> bool:
    """Whether namespaces can be made here."""
    return os.geteuid() == 0 and shutil.which("ip") is not None


@contextlib.contextmanager
def two_hosts() -> Iterator[Hosts]:
    """Make them, and take them away. Raises InputError where that cannot be."""
    if not possible():
        raise InputError(
            "namespaces", True, "needs root and the ip command", remedy="leave it out: loopback serves too"
        )
    with contextlib.ExitStack() as stack:
        hosts = {name: stack.enter_context(_host(name, network)) for name, network in _NETWORKS.items()}
        yield Hosts(**hosts)


@contextlib.contextmanager
def _host(name: str, network: str) -> Iterator[Host]:
    host = Host(f"dragoman-{name}-{os.getpid()}", f"{network}.2", f"{network}.1")
    inside, outside = f"dg-{name}-in", f"dg-{name}-out"
    _ip("netns", "add", host.namespace)
    try:
        _ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", host.namespace)
        _ip("address", "add", f"{host.outside}/30", "dev", outside)
        _ip("link", "set", outside, "up")
        for command in (
            ("address", "add", f"{host.address}/30", "dev", inside),
            ("link", "set", inside, "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-netns", host.namespace, *command)
        yield host
    finally:
        subprocess.run(["ip", "link", "delete", outside], capture_output=True, check=False)
        _ip("netns", "delete", host.namespace)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError("namespaces", " ".join(arguments), f"ip says: {done.stderr.strip()}")
