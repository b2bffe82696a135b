"""What actors of the fleet ask of the cluster: of the nodes that they run on, and how many they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

MAX_REPLICAS: Final = 1000
#: The resource that only the head node of a cluster has.
HEAD: Final = "node:__internal_head__"
#: So much of it is asked for, by whom it shall host.
_ON_HEAD: Final = {HEAD: 0.001}

Cpus = Annotated[float, Field(ge=0, le=1024, allow_inf_nan=False)]


def _whole_or_part(gpus: float) -> float:
    if gpus > 1 and gpus != int(gpus):
        raise ValueError("is neither a part of one GPU nor a whole number of them")
    return gpus


#: A model is on a part of one GPU, on one, or on several.
Gpus = Annotated[float, Field(ge=0, le=64, allow_inf_nan=False), AfterValidator(_whole_or_part)]
Replicas = Annotated[int, Field(ge=0, le=MAX_REPLICAS)]


@dataclass(frozen=True, slots=True)
class NodeNeeds:
    """What an actor needs of a node. ``resources``: of Ray's logical ones."""

    name: str
    labels: Mapping[str, str]
    resources: Mapping[str, float]

    @classmethod
    def of_known_address(cls, name: str, labels: Mapping[str, str], cpus: float) -> NodeNeeds:
        """Of one that is reached from beyond the cluster, and so is to come back where it was: without labels on the
        head node."""
        return cls(name, labels, {"CPU": cpus, **({} if labels else _ON_HEAD)})

    @property
    def settings(self) -> dict[str, Any]:
        """As the fleet file calls them."""
        return {
            "num_cpus": self.resources.get("CPU", 0),
            "num_gpus": self.resources.get("GPU", 0),
            "labels": dict(self.labels),
        }
