"""The coordinator of a virtual fleet: the decisions are the real ones, reports and orders are calls."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence

from coordinator.config import CoordinatorConfig
from coordinator.fleet import Dismissal, Fleet
from coordinator.registry import Member
from speculation.errors import DragomanError
from tests.support.virtual_hosts import Course, Host
from tests.support.virtual_time import Clock
from transport.address import Address
from verifier_service.fleet_member import VerifierMember
from verifier_service.verifier import Verifier


async def coordinate(hosts: Sequence[Host], clock: Clock, chance: random.Random, course: Course) -> None:
    """Reports and orders are lost now and then; it is killed as well, and begins anew."""
    while True:
        coordinator = _Coordinator(hosts, clock, chance)
        dies = clock.now + chance.expovariate(1 / 20)
        while clock.now < dies:
            coordinator.hear()
            course.happened["order"] += coordinator.decide()
            await asyncio.sleep(coordinator.config.plan_seconds)
        await asyncio.sleep(chance.uniform(0, 6))


class _Coordinator:
    def __init__(self, hosts: Sequence[Host], clock: Clock, chance: random.Random) -> None:
        self.config = CoordinatorConfig()
        self._hosts = hosts
        self._clock = clock
        self._chance = chance
        self._fleet = Fleet(self.config, clock.now)
        self._members: dict[Verifier, Member] = {}

    def hear(self) -> None:
        """Who is up joins, and reports."""
        for host in self._hosts:
            if not host.up:
                continue
            if host.verifier not in self._members:
                with contextlib.suppress(DragomanError):
                    self._members[host.verifier] = self._fleet.join(_member(host).registration, self._clock.now)
            elif self._chance.random() < 0.9:
                self._fleet.receive(self._members[host.verifier], _member(host).report(), self._clock.now)

    def decide(self) -> int:
        """How many orders were carried out."""
        carried_out = 0
        for order in self._fleet.tick(self._clock.now):
            addressed = [verifier for verifier, member in self._members.items() if member is order.member]
            if isinstance(order, Dismissal):
                for verifier in addressed:
                    del self._members[verifier]
            elif self._chance.random() < 0.9:
                for host in (host for host in self._hosts if host.up and host.verifier in addressed):
                    _member(host).carry_out(order.message)
                    carried_out += 1
        return carried_out


def _member(host: Host) -> VerifierMember:
    """Without the link: what it would report, and how it carries orders out."""
    name, here = f"v{host.number}", f"10.0.0.{1 + host.number}:1"
    return VerifierMember(host.verifier, Address("127.0.0.1", 1), instance=name, name=name, advertised=here)
