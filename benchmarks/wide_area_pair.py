"""A target and a drafter with a distance between them, as processes: each on a core of its own, or on a device."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.certificates import PLAINTEXT, Certificates, security_options
from benchmarks.fault_proxy import FaultProxy, LinkConditions
from benchmarks.namespaces import Hosts
from benchmarks.plans import plan_options
from dragoman.client import Client
from dragoman.processes import child
from transport.address import Address
from transport.identity import Role

#: In place of a drafter: none.
ABSENT: Final = "absent"
#: Ends the name of an arm in mutual TLS.
IN_TLS: Final = "_tls"


@dataclass(frozen=True)
class Side:
    """Where a model runs. A device other than a CPU has threads of its own to feed it, so no core is kept for it."""

    device: str
    core: tuple[int, ...]

    @property
    def cpus(self) -> tuple[int, ...]:
        """Those that the process may use; empty: all."""
        return self.core if self.device == "cpu" else ()

    @property
    def options(self) -> list[str]:
        """Of the command."""
        return [f"--device={self.device}", "--threads=1"]


@dataclass(frozen=True)
class Setup:
    """What is measured on what."""

    target: str
    drafter: str
    replay: Path | None
    step: float
    token: float
    step_per_token: float
    max_tokens: int
    device: str = "cpu"
    drafter_device: str = "cpu"
    hosts: Hosts | None = None
    cores: tuple[int, ...] = field(default_factory=lambda: tuple(sorted(os.sched_getaffinity(0)))[:2])

    @property
    def cloud(self) -> Side:
        """The target's."""
        return Side(self.device, self.cores[:1])

    @property
    def edge(self) -> Side:
        """The drafter's."""
        return Side(self.drafter_device, self.cores[1:])

    def verifier(self, *plan: str) -> tuple[list[str], tuple[str, ...]]:
        """Arguments and module of the process. ``plan``: options of the verifier."""
        listen = f"--listen={self.hosts.cloud.address}:0" if self.hosts else "--listen=127.0.0.1:0"
        if self.replay is not None:
            options = [f"--recording={self.replay}", f"--step={self.step}", f"--step-per-token={self.step_per_token}"]
            return ["verifier", listen, f"--target={self.target}", *options, *plan], ("benchmarks.replay",)
        options = [f"--model={self.target}", *self.cloud.options]
        return ["verifier", listen, *options, *plan], ("dragoman", "--ready-json")

    def drafting(self, address: str) -> tuple[list[str], tuple[str, ...]]:
        """The same of the drafter that dials ``address``."""
        wrong = self.drafter == "wrong"
        if self.replay is not None or wrong:
            options = [f"--token={self.token}", *([] if wrong else [f"--recording={self.replay}"])]
            return ["drafter", *options, f"--verifier={address}"], ("benchmarks.replay",)
        options = [f"--model={self.drafter}", f"--verifier={address}", *self.edge.options]
        return ["drafter", *options], ("dragoman", "--ready-json")


@dataclass
class Arm:
    """One plan: a verifier, a drafter behind the proxy, and a client."""

    client: Client
    proxy: FaultProxy


@contextlib.asynccontextmanager
async def arm_of(setup: Setup, arm: str, certificates: Certificates) -> AsyncIterator[Arm]:
    """Raises DragomanError if a process dies before it is ready."""
    cloud, edge = (setup.hosts.cloud, setup.hosts.edge) if setup.hosts else (None, None)
    secured = {role: certificates.mutual(role, arm) for role in Role} if arm.endswith(IN_TLS) else {}
    async with contextlib.AsyncExitStack() as stack:
        arguments, module = setup.verifier(*plan_options(arm.removesuffix(IN_TLS)))
        arguments += security_options(secured.get(Role.VERIFIER, PLAINTEXT))
        inside = cloud.within if cloud else ()
        target = child("verifier", arguments, module=module, cpus=setup.cloud.cpus, within=inside)
        address = (await (await stack.enter_async_context(target)).ready())["address"]
        upstream = Address.parse(address, field="verifier")
        listen = f"{edge.outside}:0" if edge else "127.0.0.1:0"
        near = LinkConditions(0.0, 0.0, None)
        proxy = await stack.enter_async_context(
            FaultProxy(upstream_host=upstream.host, upstream_port=upstream.port, conditions=near, listen=listen)
        )
        if setup.drafter != ABSENT:
            arguments, module = setup.drafting(proxy.address)
            arguments += security_options(secured.get(Role.DRAFTER, PLAINTEXT))
            inside = edge.within if edge else ()
            drafter = child("drafter", arguments, module=module, cpus=setup.edge.cpus, within=inside)
            await (await stack.enter_async_context(drafter)).ready()
        client = Client(address, security=secured.get(Role.CLIENT, PLAINTEXT))
        yield Arm(await stack.enter_async_context(client), proxy)
