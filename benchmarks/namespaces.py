"""Two hosts on one machine: network namespaces for the cloud and for the edge, with network stacks of their own.

The namespace that one starts from lies between them and routes nothing: the only way from the edge to the cloud is the
fault proxy there, or a ``Road``. Needs root and the ``ip`` command.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from speculation.errors import InputError

#: Addresses from the range that RFC 2544 sets aside for benchmarks: no real host has them.
_NETWORKS = {"cloud": "198.18.61", "edge": "198.18.62"}

_LOCK: Final = Path(tempfile.gettempdir()) / "dragoman-namespaces.lock"
#: Seconds to wait for who has them.
_PATIENCE: Final = 300.0


@dataclass(frozen=True, slots=True)
class Host:
    """``address``: its own. ``outside``: that of the starting namespace, as it sees it. ``device``: of that one, which
    leads to it."""

    namespace: str
    address: str
    outside: str
    device: str

    @property
    def within(self) -> tuple[str, ...]:
        """What to put before a command to run it there."""
        return ("ip", "netns", "exec", self.namespace)


@dataclass(frozen=True, slots=True)
class Hosts:
    cloud: Host
    edge: Host

    def road(self) -> Road:
        """Let packets pass between the two, without a proxy. Raises InputError where that cannot be."""
        for host, other in ((self.cloud, self.edge), (self.edge, self.cloud)):
            _ip("-netns", host.namespace, "route", "add", other.address, "via", host.outside)
        road = Road((self.cloud.device, self.edge.device))
        road.restore()
        return road


@dataclass(frozen=True, slots=True)
class Road:
    """The namespace between two hosts routes what comes in by ``devices``; it is not for others that it does.

    Cut, it loses all packets and says nothing, as a network that is gone does: TCP has to send them again.
    """

    devices: tuple[str, ...]

    def cut(self) -> None:
        self._forward(False)

    def restore(self) -> None:
        self._forward(True)

    def _forward(self, forwarding: bool) -> None:
        for device in self.devices:
            switch = Path(f"/proc/sys/net/ipv4/conf/{device}/forwarding")
            try:
                switch.write_text(f"{forwarding:d}")
            except OSError as error:
                raise InputError("namespaces", str(switch), f"cannot be set: {error.strerror}") from error


def possible() -> bool:
    """Whether namespaces can be made here."""
    return os.geteuid() == 0 and shutil.which("ip") is not None


def check_possible() -> None:
    """Raises InputError where they cannot."""
    if not possible():
        remedy = "leave it out: loopback serves too"
        raise InputError("namespaces", True, "needs root and the ip command", remedy=remedy)


@contextlib.contextmanager
def two_hosts() -> Iterator[Hosts]:
    """Make them, and take them away; one pair of them at a time. Raises InputError where that cannot be."""
    check_possible()
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(FileLock(_LOCK, timeout=_PATIENCE))
        except Timeout as error:
            raise InputError(
                "namespaces", True, f"others have had them for {_PATIENCE:g} s: {_LOCK} is locked"
            ) from error
        _clear()
        hosts = {name: stack.enter_context(_host(name, network)) for name, network in _NETWORKS.items()}
        yield Hosts(**hosts)


def _clear() -> None:
    """Of what one that was killed has left; under the lock."""
    listed = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=False).stdout.split()
    for name in _NETWORKS:
        subprocess.run(["ip", "link", "delete", _outside(name)], capture_output=True, check=False)
        for namespace in listed:
            if namespace.startswith(f"dragoman-{name}-"):
                _ip("netns", "delete", namespace)


@contextlib.contextmanager
def _host(name: str, network: str) -> Iterator[Host]:
    inside, outside = f"dg-{name}-in", _outside(name)
    host = Host(f"dragoman-{name}-{os.getpid()}", f"{network}.2", f"{network}.1", outside)
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


def _outside(name: str) -> str:
    """The device of the starting namespace that leads to a host."""
    return f"dg-{name}-out"


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError("namespaces", " ".join(arguments), f"ip says: {done.stderr.strip()}")
