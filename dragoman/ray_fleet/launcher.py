"""Bringing the fleet up, changing its size, and taking it down: what `dragoman fleet` does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any, Final, TypeVar

from dragoman.ray_fleet.admission import Admission
from dragoman.ray_fleet.calls import Answer, Outcome, ask, ask_until
from dragoman.ray_fleet.config import AnyGroup, DrafterGroup, FleetFile, Target
from dragoman.ray_fleet.discovery import COORDINATOR, own_host
from dragoman.ray_fleet.gateway_group import GatewayGroup
from dragoman.ray_fleet.places import MAX_REPLICAS
from dragoman.ray_fleet.replicas import (
    Replica,
    handle_of,
    kind_of,
    running,
    start_coordinator,
    start_replica,
)
from dragoman.ray_fleet.room import Ask
from dragoman.ray_fleet.standing import Standing, differences, unlike
from speculation.errors import ConnectionFailedError, DragomanError, InputError
from speculation.plural import count_of

Note = Callable[[str], None]
#: Seconds for an actor's answer to a plain question, and for its end.
_ANSWER: Final = 10.0
_STOP: Final = 10.0
#: Seconds between two words about what is still coming up.
_PATIENCE: Final = 10.0
#: Actors that are asked at a time.
_AT_ONCE: Final = 32
_T = TypeVar("_T")
_R = TypeVar("_R")


class Launcher:
    """``ray``: connected to the cluster. ``note``: told what happens, line by line. ``host``: called in the actors that
    are started, for the address that they listen at. ``alone``: the cluster is one that `fleet up` started, which no
    other node will join."""

    def __init__(
        self,
        ray: ModuleType,
        *,
        note: Note = lambda words: None,
        host: Callable[[], str] = own_host,
        alone: bool = False,
    ) -> None:
        self._ray = ray
        self._host = host
        self._note = note
        self._admission = Admission(ray, note=note, standings=self.status, alone=alone)

    # ---- up -----------------------------------------------------------------------------------------------------

    def up(self, fleet: FleetFile, *, wait_seconds: float) -> list[Standing]:
        """Start what is not there, and wait until all of it serves.

        Raises DragomanError if a group has no node that could host it after ``wait_seconds``, or no node has room left
        for it, InputError or ModelError of an actor that cannot serve, ConnectionFailedError for one that does not come
        up in time. Actors that this call started and that do not serve are removed again.
        """
        there = self.status()
        asks = [_ask(group.name, group, there) for group in fleet.groups]
        if not any(one.name == COORDINATOR for one in there):
            asks.insert(0, Ask(words=COORDINATOR, place=fleet.coordinator.place, count=1, kept={}))
        grows = wait_seconds > 0 and self._admission.grows()
        if grows:
            self._admission.tell(asks)
        else:
            self._admission.await_nodes(fleet.places, wait_seconds)
            self._admission.await_room(asks, wait_seconds)
        found = self._start(fleet, fleet.start_seconds + (wait_seconds if grows else 0.0))
        names = {one.name for one in found}
        for line in unlike(fleet, [*found, *(one for one in self.status() if one.name not in names)]):
            self._note(line)
        return found

    def _start(self, fleet: FleetFile, seconds: float) -> list[Standing]:
        """All at once, then wait for each."""
        until = time.monotonic() + seconds
        before = {replica.actor_name for replica in running(self._ray)}
        new = [] if handle_of(self._ray, COORDINATOR) else [COORDINATOR]
        try:
            common: dict[str, Any] = {"host": self._host, "security": fleet.security}
            started = [(COORDINATOR, "coordinator", start_coordinator(self._ray, fleet.coordinator, **common))]
            for group in fleet.groups:
                for number in range(group.replicas):
                    replica = Replica(kind_of(group), group.name, number)
                    if replica.actor_name not in before:
                        new.append(replica.actor_name)
                    started.append((replica.name, replica.kind, start_replica(self._ray, group, number, **common)))
            return [self._await(name, kind, handle, until) for name, kind, handle in started]
        except BaseException:
            self._remove_failed(new)
            raise

    def _await(self, name: str, kind: str, handle: Any, until: float) -> Standing:
        """Until the actor serves."""
        while True:
            step = min(until, time.monotonic() + _PATIENCE)
            answer = ask_until(self._ray, handle.ready.remote, step)
            if answer.outcome is Outcome.ANSWERED:
                found = Standing(name=name, kind=kind, outcome=Outcome.ANSWERED, facts=answer.value)
                self._note(f"{name} serves {'at' if answer.value['address'] else 'on'} {found.where}")
                return found
            if answer.outcome is Outcome.GONE:
                raise DragomanError(f"{name} cannot run: {answer.why}", remedy="see Ray's log of the actor")
            why = self._why_not(handle, answer)
            if time.monotonic() >= until:
                raise ConnectionFailedError(f"{name} does not serve in time: {why}", remedy="raise start_seconds")
            self._note(f"{name} is not there yet: {why}")

    def _why_not(self, handle: Any, answer: Answer) -> str:
        """Of an actor that is not ready: what it says, or what Ray says."""
        if answer.outcome is Outcome.AWAY:
            return answer.why
        told = ask(self._ray, handle.describe.remote, _ANSWER)
        if told.outcome is Outcome.ANSWERED:
            return str(told.value["problem"] or "it is starting")
        free = self._ray.available_resources()
        room = ", ".join(f"{free.get(name, 0):g} {name}" for name in ("CPU", "GPU"))
        return f"its actor was not started yet; the cluster has {room} free"

    def _remove_failed(self, names: list[str]) -> None:
        """Of the actors just started: those that do not serve."""
        for name in names:
            handle = handle_of(self._ray, name)
            if handle is None:
                continue
            try:
                answer = ask(self._ray, handle.describe.remote, 1.0)
                serves = answer.outcome is Outcome.ANSWERED and answer.value["serving"]
            except DragomanError:
                serves = False
            if not serves:
                self._ray.kill(handle)
                self._note(f"{name.partition('/')[2] or name} is removed again: it does not serve")

    # ---- status -------------------------------------------------------------------------------------------------

    def status(self) -> list[Standing]:
        """Every actor of the fleet, the coordinator first; empty if there is none."""
        replicas = sorted(running(self._ray), key=lambda replica: replica.kind != "verifier")
        names = [(replica.name, replica.kind, replica.actor_name) for replica in replicas]
        if handle_of(self._ray, COORDINATOR) is not None:
            names.insert(0, (COORDINATOR, "coordinator", COORDINATOR))
        return at_once(lambda name: self._standing(*name), names)

    def _standing(self, name: str, kind: str, actor_name: str) -> Standing:
        handle = handle_of(self._ray, actor_name)
        if handle is None:
            return Standing(name, kind, Outcome.GONE, why="it was removed")
        answer = ask(self._ray, handle.describe.remote, _ANSWER)
        return Standing(name=name, kind=kind, outcome=answer.outcome, facts=answer.value or {}, why=answer.why)

    # ---- scale, drain, down -------------------------------------------------------------------------------------

    def scale(self, fleet: FleetFile, sizes: Mapping[str, int], *, drain_seconds: float) -> list[Standing]:
        """Change how many replicas a group has; texts go on meanwhile. Raises what ``up`` raises."""
        wanted = {name: self._resized(fleet, name, count) for name, count in sizes.items()}
        groups = [*wanted.values()]
        if len({group.name for group in groups}) < len(groups):
            raise InputError("sizes", ", ".join(sizes), "name a group twice", remedy="give each group one size")
        there = self.status()
        for line in differences(fleet, groups, there):
            self._note(line)
        asks = [_ask(f"{name}={sizes[name]}", group, there) for name, group in wanted.items()]
        surplus = [one for one in running(self._ray) if any(_is_beyond(one, group) for group in groups)]
        grows = fleet.wait_seconds > 0 and self._admission.grows()
        if not grows:
            ending = [one for one in there if any(one.name == replica.name for replica in surplus)]
            self._admission.await_nodes([ask.place for ask in asks if ask.count], 0.0)
            self._admission.await_room(asks, 0.0, ending=ending)
        at_once(
            lambda one: self.remove(one, drain_seconds=drain_seconds), sorted(surplus, reverse=True), note=self._note
        )
        if grows:
            self._admission.tell(asks)
        elif surplus:
            self._admission.await_room(asks, 0.0)
        targets = [group for group in groups if isinstance(group, Target)]
        drafters = [group for group in groups if isinstance(group, DrafterGroup)]
        gateway = next((group for group in groups if isinstance(group, GatewayGroup)), None)
        resized = fleet.model_copy(update={"targets": targets, "drafters": drafters, "gateway": gateway})
        return self._start(resized, fleet.start_seconds + (fleet.wait_seconds if grows else 0.0))

    def _resized(self, fleet: FleetFile, name: str, count: int) -> AnyGroup:
        group = self._group(fleet, name)
        if count > MAX_REPLICAS:
            raise InputError(group.name, count, "is too many replicas", remedy=f"{MAX_REPLICAS} at most")
        return group.model_copy(update={"replicas": count})

    def _group(self, fleet: FleetFile, name: str) -> AnyGroup:
        """By its name; ``target`` and ``drafters`` will do where there is only one of the kind."""
        groups = fleet.groups
        found: list[AnyGroup] = [group for group in groups if group.name == name]
        if not found and name in ("target", "targets"):
            found = [*fleet.targets]
        if not found and name in ("drafter", "drafters"):
            found = [*fleet.drafters]
        if len(found) == 1:
            return found[0]
        problem = "means several groups" if found else "is no group of the fleet file"
        raise InputError("group", name, problem, remedy=f"one of {', '.join(group.name for group in groups)}")

    def drain(self, name: str, *, seconds: float) -> None:
        """Take one replica out of service: its sessions end within ``seconds`` or go elsewhere. Raises InputError."""
        found = [replica for replica in running(self._ray) if replica.name == name]
        if not found:
            there = ", ".join(replica.name for replica in running(self._ray)) or "none"
            raise InputError("replica", name, "is not there", remedy=f"one of: {there}")
        for replica in found:
            self.remove(replica, drain_seconds=seconds)

    def remove(self, replica: Replica, *, drain_seconds: float) -> None:
        """A verifier lets its sessions go first, a gateway its texts end; a drafter just leaves, which costs its
        sessions nothing but speed."""
        handle = handle_of(self._ray, replica.actor_name)
        if handle is None:
            return
        if replica.kind != "drafter":
            answer = ask(self._ray, lambda: handle.drain.remote(drain_seconds), drain_seconds + _ANSWER)
            if answer.outcome is Outcome.ANSWERED and answer.value:
                text, session = count_of(answer.value, "text"), count_of(answer.value, "session")
                did = f"broke {text} off" if replica.kind == "gateway" else f"handed {session} over"
                self._note(f"{replica.name} {did}")
        ask(self._ray, handle.stop.remote, _STOP)
        self._ray.kill(handle)
        self._note(f"{replica.name} is gone")

    def down(self) -> int:
        """End all of it, gateways and drafters first, the coordinator last; how many actors that were."""
        replicas = running(self._ray)
        for kind in ("gateway", "drafter", "verifier"):
            ending = [one for one in replicas if one.kind == kind]
            at_once(lambda one: self.remove(one, drain_seconds=0.0), ending, note=self._note)
        coordinator = handle_of(self._ray, COORDINATOR)
        if coordinator is not None:
            ask(self._ray, coordinator.stop.remote, _STOP)
            self._ray.kill(coordinator)
            self._note("the coordinator is gone")
        return len(replicas) + (coordinator is not None)


def _ask(words: str, group: AnyGroup, there: Iterable[Standing]) -> Ask:
    """For those that the group lacks."""
    names = {f"{group.name}/{number}" for number in range(group.replicas)}
    kept = {one.name: one.held for one in there if one.name in names}
    return Ask(words=words, place=group.place, count=len(names) - len(kept), kept=kept)


def _is_beyond(replica: Replica, group: AnyGroup) -> bool:
    """Of the group, and more than it shall have."""
    return replica.kind == kind_of(group) and replica.group == group.name and replica.number >= group.replicas


def at_once(call: Callable[[_T], _R], arguments: Iterable[_T], *, note: Note = lambda words: None) -> list[_R]:
    """Of actors that do not answer each takes seconds; of many at once, all together take no longer.

    Stopped half-way it waits all the same, so that none is left between two states, and says so.
    """
    with ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="launcher") as pool:
        try:
            return list(pool.map(call, arguments))
        except KeyboardInterrupt:
            note("stopping, once what is on its way out is gone")
            raise
