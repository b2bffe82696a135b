"""The section `gateway` of a fleet file: the HTTP front door, as replicas that share a port on each node."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from pydantic import AfterValidator, Field

from dragoman.ray_fleet.labels import Labels
from dragoman.ray_fleet.places import Cpus, NodeNeeds, Replicas
from gateway.actor import GatewayPorts
from gateway.settings import GatewaySettings
from speculation.errors import InputError
from transport.address import Address
from transport.security import PREFIX, PemFile, Security
from transport.settings import Mistake, Port

#: Names the file of API keys if the fleet file does not, where `fleet up` runs.
TOKENS_VARIABLE: Final = f"{PREFIX}TOKENS"
_PORT: Final = 8000
_LAST_PORT: Final = 65_535


def _host(written: str) -> str:
    try:
        # With a port of its own it is no host, but for IPv6, which has colons and here no brackets.
        found = Address.parse(f"[{written}]:1" if written.count(":") > 1 else f"{written}:1", field="host")
    except InputError as error:
        raise ValueError("should be a host alone: 0.0.0.0, 10.0.0.5, ::; the port is a setting of its own") from error
    return found.host


def _absolute(path: str | None) -> str | None:
    if path is not None and not Path(path).is_absolute():
        raise ValueError("should be an absolute path: actors run in folders of Ray's, on any node")
    return path


Host = Annotated[str, AfterValidator(_host)]
NodeFile = Annotated[PemFile, AfterValidator(_absolute)]


class GatewayGroup(GatewaySettings):
    """``host`` None: each replica's node, by its address. ``metrics_port``: of the first replica, the n-th takes the
    n-th after it. ``labels`` {}: all replicas run on the cluster's head node."""

    name: ClassVar[str] = "gateway"

    replicas: Replicas = 1
    host: Host | None = None
    port: Port = _PORT
    metrics_port: Port | None = None
    tls_cert: NodeFile = None
    tls_key: NodeFile = None
    tokens: NodeFile = None
    num_cpus: Cpus = 0
    labels: Labels = Field(default={})

    @property
    def place(self) -> NodeNeeds:
        return NodeNeeds.of_known_address(self.name, self.labels, self.num_cpus)

    def settings_of(self, number: int) -> GatewaySettings:
        """All replicas do the same."""
        return GatewaySettings(**{name: getattr(self, name) for name in GatewaySettings.model_fields})

    def ports_of(self, number: int) -> GatewayPorts:
        """Of a replica."""
        metrics_port = self.metrics_port + number if self.metrics_port else None
        return GatewayPorts(self.port, listen_host=self.host, metrics_port=metrics_port)

    def told_of(self, number: int) -> dict[str, Any]:
        """What a replica's actor tells of its settings besides ``settings_of``. Files by their names alone."""
        told = {name: getattr(self, name) for name in ("host", "port", "tls_cert", "tls_key")}
        return told | {"metrics_port": self.ports_of(number).metrics_port, "tokens": self._tokens}

    @property
    def _tokens(self) -> str | None:
        named = os.environ.get(TOKENS_VARIABLE)
        return self.tokens or (str(Path(named).absolute()) if named else None)

    def serving(self, dialling: Security) -> Security:
        """Towards those who ask for texts. ``dialling``: towards the fleet, whose certificate it shows to both if it
        has none of its own."""
        own = {"tls_cert": self.tls_cert, "tls_key": self.tls_key} if self.tls_cert else {}
        tokens = self._tokens
        unused = {"tls_revoked": None} if tokens else {}  # who has a key is asked for no certificate
        return dialling.model_copy(update={**own, **unused, "tokens": tokens})

    def mistakes(self, dialling: Security | None = None) -> Iterator[Mistake]:
        """Places are those of the fleet file. ``dialling``: as ``serving`` takes it."""
        for name, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
            if getattr(self, name) is not None and getattr(self, other) is None:
                problem = f"comes without {other}"
                yield Mistake((self.name, name), getattr(self, name), problem, remedy=f"add {other}")
        security = self.serving(dialling or Security())
        if security.tokens is not None and security.tls_cert is None:
            where = "" if self.tokens else f" (from {TOKENS_VARIABLE})"
            remedy = "add gateway.tls_cert and gateway.tls_key: whoever sees a key has it"
            yield Mistake((self.name, "tokens"), f"{security.tokens}{where}", "comes without TLS", remedy=remedy)
        if self.metrics_port is not None and self.metrics_port + self.replicas - 1 > _LAST_PORT:
            problem = f"the last of {self.replicas} replicas would have a port beyond {_LAST_PORT}"
            yield Mistake((self.name, "metrics_port"), self.metrics_port, problem, remedy="choose another, or null")

    def taken_ports(self) -> Iterator[tuple[str, int]]:
        """(the setting, port) of each port at which something of it listens, on whichever nodes."""
        if self.replicas:
            yield "port", self.port
        for number in range(self.replicas if self.metrics_port else 0):
            yield "metrics_port", (self.metrics_port or 0) + number
