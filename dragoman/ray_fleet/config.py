"""The fleet file: targets, drafters and the coordinator on Ray. ``deploy/fleet.yaml`` explains every setting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, TypeVar

from pydantic import Field

from coordinator.config import CoordinatorConfig
from drafter_service.settings import DrafterSettings
from dragoman.ray_fleet.gateway_group import GatewayGroup
from dragoman.ray_fleet.labels import Labels
from dragoman.ray_fleet.places import Cpus, Gpus, NodeNeeds, Replicas
from transport.address import COORDINATOR_PORT
from transport.identity import Role
from transport.security import FILES, Security
from transport.settings import Device, Mistake, Port, Settings, read_settings
from verifier_service.drafter_trust import NAMELESS
from verifier_service.settings import VerifierSettings

_LAST_PORT: Final = 65_535

_S = TypeVar("_S", VerifierSettings, DrafterSettings)

Wait = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]


class Group(Settings):
    """Replicas that are alike. What each of them does are its service's settings."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=100)
    model: str
    device: Device
    replicas: Replicas = 1
    num_cpus: Cpus = 1
    num_gpus: Gpus = 0
    labels: Labels = Field(default={})

    @property
    def place(self) -> NodeNeeds:
        return NodeNeeds(self.name, self.labels, {"CPU": self.num_cpus, "GPU": self.num_gpus})

    def _service(self, model: type[_S]) -> _S:
        """The settings of the service among these. Ray does not hide GPUs from an actor that asked for none."""
        device = "cpu" if self.device == "auto" and not self.num_gpus else self.device
        values = {name: getattr(self, name) for name in model.model_fields}
        return model(**values | {"device": device})


class Target(VerifierSettings, Group):
    """``port``: of the first replica, the n-th takes the n-th after it; None: free ones."""

    port: Port | None = None

    def settings_of(self, number: int) -> VerifierSettings:
        """All replicas do the same."""
        return self._service(VerifierSettings)

    def port_of(self, number: int) -> int:
        """Of a replica; 0: a free one."""
        return self.port + number if self.port else 0


class DrafterGroup(DrafterSettings, Group):
    """``model``: as everywhere, or ``lookup``."""

    labels: Labels = Field(default={"role": "edge"})

    def settings_of(self, number: int) -> DrafterSettings:
        """All replicas do the same."""
        return self._service(DrafterSettings)


class CoordinatorSettings(Settings):
    """``settings``: those of coordinator.yaml. ``labels`` {}: it runs on the cluster's head node."""

    port: Port = COORDINATOR_PORT
    num_cpus: Cpus = 0
    labels: Labels = Field(default={})
    settings: CoordinatorConfig = CoordinatorConfig()

    @property
    def place(self) -> NodeNeeds:
        return NodeNeeds.of_known_address("coordinator", self.labels, self.num_cpus)


class FleetSecurity(Security):
    """Of all actors. Who reaches a Ray cluster may run any code there, so its network has to be trusted anyway, and
    plaintext is allowed unless the file says otherwise. ``{role}`` in a name stands for coordinator, verifier,
    drafter or, for the gateway, client: every role has a certificate of its own, at the same place on every node."""

    allow_plaintext: bool = True

    def of_role(self, role: Role) -> Security:
        """For an actor."""
        paths = {name: getattr(self, name) for name in FILES}
        written = {name: path.replace("{role}", role) for name, path in paths.items() if path is not None}
        serves = role is not Role.DRAFTER
        revoked = self.tls_revoked.replace("{role}", role) if serves and self.tls_revoked is not None else None
        return Security(allow_plaintext=self.allow_plaintext, tls_revoked=revoked, **written)

    def mistake(self) -> Mistake | None:
        """All actors but drafters serve, and all but the coordinator dial, so they need all of TLS or nothing of it."""
        for name in ("tokens", "token_file"):
            if (file := getattr(self, name)) is not None:
                problem = "is not for actors, which know each other by certificates"
                remedy = "give tls_cert, tls_key and tls_ca; API keys of people go into gateway.tokens"
                return Mistake(("security", name), file, problem, remedy=remedy)
        given = [name for name in FILES if getattr(self, name) is not None]
        missing = [name for name in FILES if name not in given]
        if given and missing:
            return Mistake(
                ("security", given[0]),
                getattr(self, given[0]),
                f"comes without {' and '.join(missing)}",
                remedy="give all three, or none",
            )
        if missing and self.tls_revoked is not None:
            remedy = "give tls_cert, tls_key and tls_ca, or leave it out"
            return Mistake(("security", "tls_revoked"), self.tls_revoked, "comes without mutual TLS", remedy=remedy)
        if missing and not self.allow_plaintext:
            problem = "leaves the actors no way to reach each other: there is no tls_cert"
            remedy = "give tls_cert, tls_key and tls_ca, or true"
            return Mistake(("security", "allow_plaintext"), value=False, problem=problem, remedy=remedy)
        return None


AnyGroup = Target | DrafterGroup | GatewayGroup


class FleetFile(Settings):
    """``gateway`` None: there is none. ``wait_seconds``: for nodes that are to come; ``start_seconds``: until
    everything serves."""

    coordinator: CoordinatorSettings = CoordinatorSettings()
    targets: list[Target] = Field(min_length=1)
    drafters: list[DrafterGroup] = Field(default=[])
    gateway: GatewayGroup | None = None
    security: FleetSecurity = FleetSecurity()
    wait_seconds: Wait = 60
    start_seconds: Wait = 600

    @property
    def groups(self) -> list[AnyGroup]:
        return [*self.model_groups, *([self.gateway] if self.gateway is not None else [])]

    @property
    def model_groups(self) -> list[Target | DrafterGroup]:
        return [*self.targets, *self.drafters]

    @property
    def places(self) -> list[NodeNeeds]:
        return [self.coordinator.place, *(group.place for group in self.groups if group.replicas)]

    def mistakes(self) -> Iterator[Mistake]:
        insecure = self.security.mistake()
        if insecure is not None:
            yield insecure
        if "listen" in self.coordinator.settings.model_fields_set:
            yield Mistake(
                ("coordinator", "settings", "listen"),
                self.coordinator.settings.listen,
                "on Ray the coordinator listens at the address of its node",
                remedy="leave it out, and set coordinator.port",
            )
        names: set[str] = set()
        if self.gateway is not None:
            names.add(self.gateway.name)
            yield from self.gateway.mistakes(self.security.of_role(Role.CLIENT))
        for kind in ("targets", "drafters"):
            for index, group in enumerate(getattr(self, kind)):
                if group.name in names:
                    yield Mistake(
                        (kind, index, "name"), group.name, "is taken by another group", remedy="name it otherwise"
                    )
                names.add(group.name)
        for index, target in enumerate(self.targets):
            if (asked := target.trust.asks) is not None and self.security.tls_ca is None:
                setting, value = asked
                yield Mistake(("targets", index, setting), value, NAMELESS, remedy="give the files of TLS in security")
        yield from self._gpu_mistakes()
        yield from self._port_mistakes()

    def _gpu_mistakes(self) -> Iterator[Mistake]:
        for kind in ("targets", "drafters"):
            for index, group in enumerate(getattr(self, kind)):
                ranks = getattr(group, "tensor_parallel", 1)
                if group.num_gpus != ranks > 1:
                    problem = f"is not its num_gpus, {group.num_gpus:g}"
                    yield Mistake((kind, index, "tensor_parallel"), ranks, problem, remedy=f"num_gpus: {ranks}")
                if group.num_gpus > ranks == 1:
                    remedy = "give a part of one, 1, or for a target as many as its tensor_parallel"
                    yield Mistake((kind, index, "num_gpus"), group.num_gpus, "its model is on one GPU", remedy=remedy)

    def _port_mistakes(self) -> Iterator[Mistake]:
        """As if all of it ran on one node."""
        ports: dict[int, str] = {self.coordinator.port: "coordinator"}
        for setting, port in self.gateway.taken_ports() if self.gateway is not None else ():
            if port in ports:
                value = getattr(self.gateway, setting)
                problem = f"port {port} is taken by {ports[port]}"
                yield Mistake(("gateway", setting), value, problem, remedy="choose another")
            ports[port] = "gateway"
        for index, target in enumerate(self.targets):
            for port in range(target.port, target.port + target.replicas) if target.port else ():
                problem = f"port {port} is taken by {ports[port]}" if port in ports else ""
                if port > _LAST_PORT:
                    problem = f"the last of {target.replicas} replicas would have a port beyond {_LAST_PORT}"
                if problem:
                    yield Mistake(
                        ("targets", index, "port"), target.port, problem, remedy="choose other ports, or null"
                    )
                ports[port] = target.name


def read_fleet(path: Path) -> FleetFile:
    """Raises InputError, which names the line, the field, its value and what to write instead."""
    return read_settings(path, FleetFile, field="config", remedy="deploy/fleet.yaml explains every setting")
