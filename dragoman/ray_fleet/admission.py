"""Before actors are started: whether the cluster has room for them, and what to tell if not.

Ray itself would let them wait for ever, and say nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Final

from dragoman.ray_fleet.nodes import Node, alive, may_grow, problem_of, wait_for_nodes, with_room
from dragoman.ray_fleet.places import NodeNeeds
from dragoman.ray_fleet.room import Ask, Lack, lack_of
from dragoman.ray_fleet.standing import Standing
from speculation.errors import DragomanError

#: Seconds after which what ended actors held is free by Ray's word, and between two looks.
_SETTLE: Final = 3.0
_POLL: Final = 0.25


class Admission:
    """``note``: told of what is waited for. ``standings``: how the fleet's actors stand now. ``alone``: no node will
    join this cluster, which `fleet up` started."""

    def __init__(
        self,
        ray: ModuleType,
        *,
        note: Callable[[str], None],
        standings: Callable[[], Sequence[Standing]],
        alone: bool,
    ) -> None:
        self._ray = ray
        self._note = note
        self._standings = standings
        self._alone = alone

    def grows(self) -> bool:
        """Whether the cluster may add nodes by itself, once actors wait for them."""
        return may_grow(alive(self._ray))

    def await_nodes(self, places: Sequence[NodeNeeds], seconds: float) -> None:
        """Until there is a node for each. Raises DragomanError."""
        wait_for_nodes(self._ray, places, seconds, note=self._note)

    def await_room(self, asks: Sequence[Ask], seconds: float, *, ending: Sequence[Standing] = ()) -> None:
        """Until all find room on nodes that are there. ``ending``: actors whose room they may have.

        Raises DragomanError after so many seconds; what has ended just now gets a moment to be free by Ray's word.
        """
        until = time.monotonic() + max(0.0 if self._alone else seconds, _SETTLE)
        told = False
        while (lack := self._lack(asks, self._freed(with_room(self._ray), ending))) is not None:
            if time.monotonic() >= until:
                raise DragomanError(lack.message(self._holders()), remedy=self._remedy(lack))
            if seconds and not self._alone and not told:
                self._note(f"waiting for room: {lack.message(self._holders())}")
                told = True
            time.sleep(_POLL)

    def tell(self, asks: Sequence[Ask]) -> None:
        """What has no room yet in a cluster that grows."""
        nodes = with_room(self._ray)
        for ask in asks:
            if ask.count and (problem := problem_of(ask.place, nodes)):
                self._note(f"{ask.place.name} has no place yet: {problem}; waiting for the cluster to add a node")
        lack = self._lack(asks, nodes, grows=True)
        if lack is not None:
            self._note(f"{lack.message(self._holders())}; waiting for the cluster to add a node")

    def _lack(self, asks: Sequence[Ask], nodes: Sequence[Node], *, grows: bool = False) -> Lack | None:
        hosted = [ask for ask in asks if ask.count and any(node.fulfils(ask.place) for node in nodes)]
        return lack_of(hosted, nodes, grows=grows)

    def _freed(self, nodes: Sequence[Node], ending: Sequence[Standing]) -> Sequence[Node]:
        """Where several nodes are one machine this is more than will be: it is looked at again once they have ended."""
        for one in ending:
            nodes = [node.freed(one.held) if node.host == one.facts.get("host") else node for node in nodes]
        return nodes

    def _holders(self) -> dict[str, dict[str, float]]:
        return {one.name: one.held for one in self._standings()}

    def _remedy(self, lack: Lack) -> str:
        place = lack.ask.place
        found = [lack.smaller()]
        if not lack.never:
            found.append("end what else runs there (`dragoman fleet scale`)")
        if self._alone:
            found.append("`dragoman fleet down`, then `up`, starts a Ray with room for what the file says")
        else:
            labels = ",".join(f"{name}={value}" for name, value in place.labels.items())
            found.append(f"add a node: `ray start --address=HEAD:6379{f' --labels={labels}' if labels else ''}`")
        return ", or ".join(each for each in found if each)
