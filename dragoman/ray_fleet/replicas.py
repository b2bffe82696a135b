"""The fleet's actors in the cluster: how they are named, which are there, how one is started."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from coordinator.actor import CoordinatorActor
from coordinator.config import CoordinatorConfig
from drafter_service.actor import DrafterActor
from dragoman.gateway_backend import followed_fleet
from dragoman.ray_fleet.cluster import NAMESPACE
from dragoman.ray_fleet.config import AnyGroup, CoordinatorSettings, DrafterGroup, FleetSecurity, Target
from dragoman.ray_fleet.discovery import COORDINATOR, coordinator_address, listening_gateways
from dragoman.ray_fleet.gateway_group import GatewayGroup
from dragoman.ray_fleet.metrics import RayInstruments
from dragoman.ray_fleet.places import NodeNeeds
from gateway.actor import GatewayActor
from transport.identity import Role
from verifier_service.actor import VerifierActor


@dataclass(frozen=True, order=True, slots=True)
class Replica:
    """``qwen/0``: the first of the group ``qwen``. ``kind``: verifier, drafter or gateway."""

    kind: str
    group: str
    number: int

    @property
    def name(self) -> str:
        return f"{self.group}/{self.number}"

    @property
    def actor_name(self) -> str:
        return f"{self.kind}/{self.name}"


def kind_of(group: AnyGroup) -> str:
    match group:
        case Target():
            return "verifier"
        case GatewayGroup():
            return "gateway"
    return "drafter"


def running(ray: ModuleType) -> list[Replica]:
    """Replicas that the cluster has, in order; dead ones are not among them, restarting ones are."""
    found = []
    for actor in ray.util.list_named_actors(all_namespaces=True):
        parts = actor["name"].split("/")
        if actor["namespace"] == NAMESPACE and len(parts) == 3 and parts[2].isdecimal():
            found.append(Replica(parts[0], parts[1], int(parts[2])))
    return sorted(found)


def handle_of(ray: ModuleType, actor_name: str) -> Any | None:
    """None if there is no such actor."""
    try:
        return ray.get_actor(actor_name, NAMESPACE)
    except ValueError:
        return None


def start_coordinator(
    ray: ModuleType, wanted: CoordinatorSettings, *, host: Callable[[], str], security: FleetSecurity
) -> Any:
    """The coordinator's actor, started if it is not there."""
    options = _options(COORDINATOR, wanted.place)
    config = CoordinatorConfig.model_validate(wanted.settings.model_dump())
    made = ray.remote(CoordinatorActor).options(**options)
    return made.remote(
        COORDINATOR,
        config,
        wanted.port,
        host=host,
        security=security.of_role(Role.COORDINATOR),
        placed=wanted.place.settings,
    )


def start_replica(
    ray: ModuleType,
    group: AnyGroup,
    number: int,
    *,
    host: Callable[[], str],
    security: FleetSecurity,
) -> Any:
    """The actor of a group's replica, started if it is not there. ``host``: called in it for where it listens."""
    replica = Replica(kind_of(group), group.name, number)
    # Spread: a lost machine shall not take all replicas along, and fractions of a CPU not crowd on one of several.
    options = _options(replica.actor_name, group.place) | {"scheduling_strategy": "SPREAD"}
    coordinator = functools.partial(coordinator_address, NAMESPACE)
    if isinstance(group, GatewayGroup):
        dialling = security.of_role(Role.CLIENT)
        return (
            ray.remote(GatewayActor)
            .options(**options)
            .remote(
                replica.name,
                group.settings_of(number),
                group.ports_of(number),
                host=host,
                connect=functools.partial(followed_fleet, coordinator, security=dialling),
                siblings=functools.partial(listening_gateways, NAMESPACE),
                security=group.serving(dialling),
                placed=group.place.settings,
                told=group.told_of(number),
            )
        )
    common = {
        "host": host,
        "coordinator": coordinator,
        "security": security.of_role(Role.DRAFTER if isinstance(group, DrafterGroup) else Role.VERIFIER),
        "placed": group.place.settings,
    }
    if isinstance(group, DrafterGroup):
        made = ray.remote(DrafterActor).options(**options)
        return made.remote(replica.name, group.settings_of(number), **common)
    made = ray.remote(VerifierActor).options(**options)
    settings, port = group.settings_of(number), group.port_of(number)
    return made.remote(replica.name, settings, port=port, **common, instruments=RayInstruments)


def _options(name: str, place: NodeNeeds) -> dict[str, Any]:
    needed = dict(place.resources)
    return {
        "name": name,
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        # A restart is a new start: nothing is kept in an actor that cannot be had again.
        "max_restarts": -1,
        "max_task_retries": 0,
        "num_cpus": needed.pop("CPU", 0),
        "num_gpus": needed.pop("GPU", 0),
        "resources": needed or None,
        "label_selector": dict(place.labels) or None,
    }
