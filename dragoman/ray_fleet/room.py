"""Whether what is asked for finds room in the cluster: now, never, or with what changed. No Ray in here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dragoman.ray_fleet.nodes import Node
from dragoman.ray_fleet.places import NodeNeeds

#: Ray counts in steps of this size.
_STEP: Final = 1e-4
#: How the fleet file calls them.
_SETTING: Final = {"CPU": "num_cpus", "GPU": "num_gpus"}


@dataclass(frozen=True, slots=True)
class Ask:
    """``count`` actors more for ``place``. ``words``: as a person asked for it, for example drafters=3. ``kept``: what
    those of the place hold that run already, by name and resource."""

    words: str
    place: NodeNeeds
    count: int
    kept: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Lack:
    """An ask that finds no room. ``resource``: what is short; ``free``: how much of it each node with the right labels
    has left for the ask; ``total``: how much there is of it on them; ``never``: not even if nothing else ran there, and
    ``free`` is then what there would be; ``now``: what there is, if that is known."""

    ask: Ask
    resource: str
    free: tuple[float, ...]
    total: float
    never: bool
    now: tuple[float, ...]

    @property
    def needed(self) -> float:
        return self.ask.place.resources[self.resource]

    def message(self, holders: Mapping[str, Mapping[str, float]]) -> str:
        """``holders``: what the fleet's actors on the cluster hold, by their names."""
        place, free = self.ask.place, sum(self.free)
        labels = ", ".join(f"{name}={value}" for name, value in place.labels.items())
        where = f" on nodes with {labels}" if labels else ""
        more = " more" if self.ask.kept else ""
        asked = f"{self.ask.words} asks for {self.ask.count}{more} x {_figure(self.needed)} {self.resource}{where}"
        if self.never:
            most = "" if free < self.needed * self.ask.count else f", {_figure(max(self.free))} on a node at most"
            return f"{asked}, and there is {_figure(self.total)} in all{most}: it can never fit on this cluster"
        told = ", ".join(
            f"{name} {_figure(held[self.resource])}" for name, held in holders.items() if held.get(self.resource)
        )
        most = f", {_figure(max(self.free))} on a node at most" if free >= self.needed * self.ask.count else ""
        held = f" (held by {told})" if told else ""
        return f"{asked}, and of {_figure(self.total)} there {_figure(free)} is free{most}{held}"

    def smaller(self) -> str:
        """What the fleet file would have to ask for instead; "" if nothing would do."""
        count, kept = self.ask.count, self.ask.kept
        value, anew = largest_share(self.now, count), list[str]()
        if not value and kept and len(self.now) == 1:  # of several nodes it is not known who runs where
            held = {name: each.get(self.resource, 0) for name, each in kept.items()}
            value = largest_share([self.now[0] + sum(held.values())], count + len(kept))
            anew = [f"`dragoman fleet drain {name}`" for name, each in held.items() if each > value]
        if not value:
            return ""
        lowered = f"lower {_SETTING[self.resource]} of {self.ask.place.name} in the fleet file to {_figure(value)}"
        return f"{lowered}, start those anew that hold more ({', '.join(anew)}), and repeat this" if anew else lowered


def lack_of(asks: Sequence[Ask], nodes: Sequence[Node], *, grows: bool = False) -> Lack | None:
    """The first ask that finds no room beside the others; None if all do. Each must have a node that fulfils its place.
    ``grows``: nodes may join, so that nothing is never.

    Those with the fewest nodes to choose from come first, then the largest, each where it leaves least over. That is
    not always the best way, so what is very tight may be refused although it would just have fitted.
    """
    failed = _packed(asks, nodes, [dict(node.free) for node in nodes])
    if failed is None or grows:
        return failed
    # Those that run with less than is asked for by now are taken for none: it is never only if it is for sure.
    alone = [Ask(words=ask.words, place=ask.place, count=ask.count + _as_large(ask), kept={}) for ask in asks]
    never = _packed(alone, nodes, [dict(node.resources) for node in nodes])
    if never is None:
        return failed
    ask = asks[alone.index(never.ask)]
    known = ask is failed.ask and never.resource == failed.resource
    return dataclasses.replace(never, ask=ask, never=True, now=failed.now if known else ())


def _as_large(ask: Ask) -> int:
    """How many of those that run hold as much as the ask is for."""
    return sum(_short_of(ask.place, held) is None for held in ask.kept.values())


def _packed(asks: Sequence[Ask], nodes: Sequence[Node], left: list[dict[str, float]]) -> Lack | None:
    """Puts them into ``left``, which is what each node has. Returns the first that does not fit."""
    hosts = {id(ask): [number for number, node in enumerate(nodes) if node.fulfils(ask.place)] for ask in asks}
    for ask in sorted(asks, key=lambda ask: (len(hosts[id(ask)]), -max(ask.place.resources.values(), default=0))):
        before = [dict(left[number]) for number in hosts[id(ask)]]
        for _ in range(ask.count):
            fitting = [number for number in hosts[id(ask)] if _short_of(ask.place, left[number]) is None]
            if not fitting:
                return _lack(ask, before, [nodes[number] for number in hosts[id(ask)]])
            best = left[min(fitting, key=lambda number: (left[number].get("GPU", 0), left[number].get("CPU", 0)))]
            for resource, needed in ask.place.resources.items():
                best[resource] = round(best.get(resource, 0) - needed, 4)
    return None


def _lack(ask: Ask, left: Sequence[Mapping[str, float]], hosts: Sequence[Node]) -> Lack:
    """``left``: what each of ``hosts`` had for it. Short is what the fewest of them would do for."""

    def room(resource: str) -> int:
        needed = ask.place.resources[resource]
        return sum(math.floor(each.get(resource, 0) / needed + _STEP) for each in left)

    resource = min((name for name, needed in ask.place.resources.items() if needed), key=room)
    free = tuple(round(each.get(resource, 0), 4) for each in left)
    return Lack(
        ask=ask,
        resource=resource,
        free=free,
        total=sum(node.resources.get(resource, 0) for node in hosts),
        never=False,
        now=free,
    )


def _short_of(place: NodeNeeds, left: Mapping[str, float]) -> str | None:
    return next((name for name, needed in place.resources.items() if left.get(name, 0) < needed - _STEP / 2), None)


def largest_share(free: Sequence[float], count: int) -> float:
    """The largest amount, in hundredths, that ``count`` actors may each take of nodes with so much free; 0: none."""
    shares = {math.floor(each / parts * 100 + _STEP) / 100 for each in free for parts in range(1, count + 1)}
    fitting = (
        share for share in shares if share > 0 and sum(math.floor(each / share + _STEP) for each in free) >= count
    )
    return max(fitting, default=0.0)


def _figure(amount: float) -> str:
    return f"{round(amount, 4):g}"
