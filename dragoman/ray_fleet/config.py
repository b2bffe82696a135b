"""The fleet file: targets, drafters and the coordinator on Ray. ``deploy/fleet.yaml`` explains every setting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from coordinator.config import CoordinatorConfig, Share
from coordinator.settings import Mistake, Settings, read_settings
from drafter_service.actor import DrafterSettings
from dragoman.ray_fleet.labels import Labels
from dragoman.sizes import parse_size
from speculation.planning.plan import START
from speculation.protocol.messages import SpeculationPlan
from transport.address import COORDINATOR_PORT
from verifier_service.actor import VerifierSettings

_LAST_PORT: Final = 65_535
MAX_REPLICAS: Final = 1000
#: The resource that only the head node of a cluster has.
HEAD: Final = "node:__internal_head__"


Cpus = Annotated[float, Field(ge=0, le=1024, allow_inf_nan=False)]
#: A model is on one GPU, or on a part of one.
Gpus = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Wait = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=1, le=_LAST_PORT)]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|(cuda|mps|xpu)(:\d+)?)$")]
Dtype = Literal["auto", "float32", "bfloat16", "float16", "int8"]
#: int8 is not among them: a target's text would depend on the drafts.
TargetDtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class Place:
    """What an actor needs of a node. ``resources``: of Ray's logical ones."""

    name: str
    labels: Mapping[str, str]
    resources: Mapping[str, float]

    @property
    def settings(self) -> dict[str, Any]:
        """As the fleet file calls them."""
        return {
            "num_cpus": self.resources.get("CPU", 0),
            "num_gpus": self.resources.get("GPU", 0),
            "labels": dict(self.labels),
        }


class PlanSettings(Settings):
    """A ``SpeculationPlan``: where a target begins, and with ``adaptive: false`` where it stays."""

    width: int = Field(default=START.width, ge=0, le=SpeculationPlan.MAX_TOKENS)
    lookahead: int = Field(default=START.lookahead, ge=0, le=SpeculationPlan.MAX_TOKENS)
    stop_threshold: Share = START.stop_threshold
    span_tokens: int = Field(default=START.span_tokens, ge=1, le=SpeculationPlan.MAX_TOKENS)
    patience: float = Field(default=0.0, ge=0, le=10, allow_inf_nan=False)
    alternatives: int = Field(default=START.alternatives, ge=0, le=SpeculationPlan.MAX_ALTERNATIVES)
    alternative_threshold: Share = START.alternative_threshold
    verify_threshold: Share = START.verify_threshold


class Group(Settings):
    """Replicas that are alike."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=100)
    model: str = Field(min_length=1)
    device: Device = "auto"
    threads: int | None = Field(default=None, ge=0, le=1024)
    replicas: int = Field(default=1, ge=0, le=MAX_REPLICAS)
    num_cpus: Cpus = 1
    num_gpus: Gpus = 0
    labels: Labels = Field(default={})

    @property
    def place(self) -> Place:
        return Place(self.name, self.labels, {"CPU": self.num_cpus, "GPU": self.num_gpus})

    @property
    def actor_device(self) -> str:
        """Ray does not hide GPUs from an actor that asked for none."""
        return "cpu" if self.device == "auto" and not self.num_gpus else self.device


class Target(Group):
    """``port``: of the first replica, the n-th takes the n-th after it; None: free ones."""

    dtype: TargetDtype = "auto"
    port: Port | None = None
    max_sessions: int = Field(default=64, ge=1, le=100_000)
    engine: Literal["auto", "paged", "transformers"] = "auto"
    kv_memory: Annotated[str, Field(pattern=r"^\d+(\.\d+)? ?[KMGT]i?B$")] | None = None
    adaptive: bool = True
    plan: PlanSettings = PlanSettings()

    def settings_of(self, number: int) -> VerifierSettings:
        return VerifierSettings(
            model=self.model,
            device=self.actor_device,
            dtype=self.dtype,
            threads=self.threads,
            port=self.port + number if self.port else 0,
            plan=SpeculationPlan(**self.plan.model_dump()),
            adaptive=self.adaptive,
            max_sessions=self.max_sessions,
            engine=self.engine,
            kv_bytes=None if self.kv_memory is None else parse_size("kv_memory", self.kv_memory),
        )


class DrafterGroup(Group):
    """``model``: as everywhere, or ``lookup``."""

    dtype: Dtype = "auto"
    labels: Labels = Field(default={"role": "edge"})
    max_sessions: int = Field(default=4, ge=1, le=100_000)

    def settings_of(self, number: int) -> DrafterSettings:
        return DrafterSettings(
            model=self.model,
            device=self.actor_device,
            dtype=self.dtype,
            threads=self.threads,
            max_sessions=self.max_sessions,
        )


class CoordinatorSettings(Settings):
    """``settings``: those of coordinator.yaml. ``labels`` {}: it runs on the cluster's head node."""

    port: Port = COORDINATOR_PORT
    num_cpus: Cpus = 0
    labels: Labels = Field(default={})
    settings: CoordinatorConfig = CoordinatorConfig()

    @property
    def place(self) -> Place:
        on_head = {} if self.labels else {HEAD: 0.001}
        return Place("coordinator", self.labels, {"CPU": self.num_cpus, **on_head})


class FleetFile(Settings):
    """``wait_seconds``: for nodes that are to come; ``start_seconds``: until everything serves."""

    coordinator: CoordinatorSettings = CoordinatorSettings()
    targets: list[Target] = Field(min_length=1)
    drafters: list[DrafterGroup] = Field(default=[])
    wait_seconds: Wait = 60
    start_seconds: Wait = 600

    @property
    def groups(self) -> list[Target | DrafterGroup]:
        return [*self.targets, *self.drafters]

    @property
    def places(self) -> list[Place]:
        return [self.coordinator.place, *(group.place for group in self.groups if group.replicas)]

    def mistakes(self) -> Iterator[Mistake]:
        if "listen" in self.coordinator.settings.model_fields_set:
            yield Mistake(
                ("coordinator", "settings", "listen"),
                self.coordinator.settings.listen,
                "on Ray the coordinator listens at the address of its node",
                remedy="leave it out, and set coordinator.port",
            )
        names: set[str] = set()
        for kind in ("targets", "drafters"):
            for index, group in enumerate(getattr(self, kind)):
                if group.name in names:
                    yield Mistake(
                        (kind, index, "name"), group.name, "is taken by another group", remedy="name it otherwise"
                    )
                names.add(group.name)
        ports: dict[int, str] = {self.coordinator.port: "coordinator"}
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
