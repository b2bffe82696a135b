"""The cluster's nodes: which of them could host a group, and waiting for one that can."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from dragoman.ray_fleet.labels import fulfils
from dragoman.ray_fleet.places import HEAD, NodeNeeds
from speculation.errors import DragomanError

_POLL: Final = 0.5
#: Ray's own labels say nothing that a person would have to know here.
_OWN_LABEL = "ray.io/node-id"
#: Nodes have it that something starts and stops by groups: an autoscaler, `ray up`, KubeRay.
_MANAGED: Final = "ray.io/node-group"


@dataclass(frozen=True, slots=True)
class Node:
    """One that is alive. ``free``: what is left of its ``resources``."""

    host: str
    labels: Mapping[str, str]
    resources: Mapping[str, float]
    free: Mapping[str, float]

    @classmethod
    def of(cls, told: Mapping[str, Any], free: Mapping[str, float] | None = None) -> Node:
        """``told``: by ``ray.nodes()``; ``free`` None: all of it."""
        labels = {name: value for name, value in told["Labels"].items() if name != _OWN_LABEL}
        return cls(told["NodeManagerAddress"], labels, told["Resources"], told["Resources"] if free is None else free)

    def fulfils(self, place: NodeNeeds) -> bool:
        """Whether it is the kind of node that the place asks for, however large and busy it is."""
        labelled = all(fulfils(self.labels.get(name), value) for name, value in place.labels.items())
        return labelled and (HEAD not in place.resources or HEAD in self.resources)

    def freed(self, held: Mapping[str, float]) -> Node:
        """The same once an actor that held so much has ended."""
        free = {name: min(self.free.get(name, 0) + held.get(name, 0), most) for name, most in self.resources.items()}
        return dataclasses.replace(self, free=free)

    def __str__(self) -> str:
        labels = ", ".join(f"{name}={value}" for name, value in sorted(self.labels.items())) or "no label"
        cpus, gpus = self.resources.get("CPU", 0), self.resources.get("GPU", 0)
        return f"{self.host} ({labels}; {cpus:g} CPU, {gpus:g} GPU)"


def problem_of(place: NodeNeeds, nodes: Sequence[Node]) -> str:
    """Why no node can host such an actor; "" if one can, once what runs there leaves room."""
    labelled = [
        node for node in nodes if all(fulfils(node.labels.get(name), value) for name, value in place.labels.items())
    ]
    cluster = f"the cluster has {'; '.join(map(str, nodes)) or 'no node'}"
    if not labelled:
        wanted = ", ".join(f"{name}={value}" for name, value in place.labels.items())
        return f"no node carries the label {wanted}; {cluster}"
    if HEAD in place.resources:  # the cluster has it, so that what else is missing there is worth telling
        labelled = [node for node in labelled if HEAD in node.resources]
    for resource, needed in place.resources.items():
        labelled = [node for node in labelled if node.resources.get(resource, 0) >= needed]
        if not labelled:
            where = "the head node" if HEAD in place.resources else "any node"
            where += " with its labels" if place.labels else ""
            return f"it needs {needed:g} {resource}, more than {where}; {cluster}"
    return ""


def alive(ray: ModuleType) -> list[Node]:
    """Without what is free on them."""
    return [Node.of(told) for told in ray.nodes() if told["Alive"]]


def with_room(ray: ModuleType) -> list[Node]:
    """With what is free on them, as of the last tenth of a second or so; a node that has just joined is all free."""
    free = ray._private.state.available_resources_per_node()
    return [Node.of(told, free.get(told["NodeID"])) for told in ray.nodes() if told["Alive"]]


def may_grow(nodes: Sequence[Node]) -> bool:
    """Whether nodes may join by themselves once actors wait for them. Of managed nodes Ray does not tell whether an
    autoscaler is what manages them, so that some of which this is true never grow."""
    return any(_MANAGED in node.labels for node in nodes)


def wait_for_nodes(
    ray: ModuleType, places: Sequence[NodeNeeds], seconds: float, *, note: Callable[[str], None] = lambda words: None
) -> None:
    """Until every place has a node that can host it. Raises DragomanError naming the first that has none."""
    until = time.monotonic() + seconds
    told = ""
    while True:
        nodes = alive(ray)
        problems = ((place, problem) for place in places if (problem := problem_of(place, nodes)))
        place, problem = next(problems, (None, ""))
        if place is None:
            return
        if time.monotonic() >= until:
            waited = f", waited {seconds:g} s for one" if seconds else ""
            labels = ",".join(f"{name}={value}" for name, value in place.labels.items())
            start = f"`ray start --address=HEAD:6379{f' --labels={labels}' if labels else ''}` on a machine for it"
            raise DragomanError(
                f"{place.name} has no place: {problem}{waited}",
                remedy=f"{start}, or change labels, num_cpus or num_gpus of {place.name} in the fleet file",
            )
        if problem != told:
            note(f"waiting for a node for {place.name}: {problem}")
            told = problem
        time.sleep(min(_POLL, max(until - time.monotonic(), 0)))
