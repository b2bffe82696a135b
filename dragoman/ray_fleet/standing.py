"""How the fleet's actors stand, and where that is not what the fleet file says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dragoman.ray_fleet.calls import Outcome
from dragoman.ray_fleet.config import AnyGroup, FleetFile, Target
from dragoman.ray_fleet.discovery import COORDINATOR
from dragoman.ray_fleet.gateway_group import GatewayGroup

#: What Ray calls what the fleet file calls otherwise.
_RESOURCES: Final = {"num_cpus": "CPU", "num_gpus": "GPU"}


@dataclass(slots=True)
class Standing:
    """How an actor stands: what it tells of itself, or why it tells nothing."""

    name: str
    kind: str
    outcome: Outcome
    facts: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""

    @property
    def state(self) -> str:
        """For people: serving, starting, restarting, dead or silent."""
        if self.outcome is not Outcome.ANSWERED:
            return {Outcome.AWAY: "restarting", Outcome.GONE: "dead", Outcome.SILENT: "silent"}[self.outcome]
        if self.facts.get("draining"):
            return "draining"
        return "serving" if self.facts["serving"] else "starting"

    @property
    def where(self) -> str:
        """For people: its URL, its address, or the machine that it runs on."""
        return str(self.facts.get("url") or self.facts.get("address") or self.facts.get("host", ""))

    @property
    def held(self) -> dict[str, float]:
        """Of Ray's resources; empty if it does not tell."""
        placed = self.facts.get("placed", {})
        return {name: placed[setting] for setting, name in _RESOURCES.items() if placed.get(setting)}

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "kind": self.kind, "state": self.state, "why": self.why, **self.facts}


def differences(fleet: FleetFile, groups: Sequence[AnyGroup], found: Sequence[Standing]) -> list[str]:
    """Lines for people: who runs with other settings than the file has by now, which Ray never changes in a running
    actor, and how to apply them. Of replicas of ``groups``, and of the coordinator; of those that answer."""
    alike: dict[tuple[str, str], list[str]] = {}
    for one in found:
        if one.kind == "coordinator":
            changed = _changed({"port": fleet.coordinator.port, **fleet.coordinator.settings.model_dump()}, one)
            changed += _changed(fleet.coordinator.place.settings, one, placed=True)
            remedy = "`dragoman fleet down`, then `dragoman fleet up`"
        else:
            name, _, number = one.name.partition("/")
            group = next((each for each in groups if each.name == name), None)
            if group is None:
                continue
            changed = _changed(_settings_of(group, int(number)), one)
            changed += _changed(group.place.settings, one, placed=True)
            remedy = f"`dragoman fleet drain {name}/N` one by one, then `dragoman fleet up` or `scale`"
        if changed:
            alike.setdefault((", ".join(changed), remedy), []).append(one.name)
    return [
        f"{', '.join(names)} as started before: {changed}; to apply the file: {remedy}"
        for (changed, remedy), names in alike.items()
    ]


def _settings_of(group: AnyGroup, number: int) -> dict[str, Any]:
    """As a replica's actor tells them."""
    settings = group.settings_of(number).model_dump()
    match group:
        case Target():
            return settings | {"port": group.port_of(number)}
        case GatewayGroup():
            return settings | group.told_of(number)
    return settings


def _changed(wanted: Mapping[str, Any], one: Standing, *, placed: bool = False) -> list[str]:
    """Such as ``num_cpus 1 (the file has 0.1)``."""
    has = one.facts.get("placed" if placed else "settings")
    if not has:
        return []
    old, new = dict(_flat(has)), dict(_flat(wanted))
    return [
        f"{name} {_shown(old.get(name))} (the file has {_shown(new.get(name))})"
        for name in new | old
        if old.get(name) != new.get(name)
    ]


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        # Labels are shown as one, as the file has them.
        if isinstance(value, Mapping) and name != "labels":
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, value


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {each}" for name, each in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def unlike(fleet: FleetFile, found: Sequence[Standing]) -> list[str]:
    """Lines for people: everything that is not as the file has it, replicas that are missing or too many as well."""
    wanted = {COORDINATOR} | {f"{group.name}/{number}" for group in fleet.groups for number in range(group.replicas)}
    there = {one.name for one in found}
    missing = [
        f"{name} is in the file and does not run: `dragoman fleet up` starts it" for name in sorted(wanted - there)
    ]
    extra = [f"{one.name} runs too, and is not in the file" for one in found if one.name not in wanted]
    return [*differences(fleet, fleet.groups, found), *missing, *extra]
