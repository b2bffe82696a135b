"""The drafter as an actor: a plain class, which whoever runs a cluster wraps; Ray is not imported here.

It dials out like any other drafter: what it drafts never travels as a call of the actor.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from drafter_service.draft_source import Drafter
from drafter_service.fleet_member import DrafterMember
from drafter_service.settings import DrafterSettings
from transport.address import Address
from transport.hosting import SelfStarting
from transport.joining import AddressSource
from transport.security import Security


class DrafterActor(SelfStarting):
    """A drafter that starts itself and comes back after a failure.

    ``host``: asked for this machine's address, for people to see. ``security`` None: as its environment says.
    """

    traces_as = "drafter"

    def __init__(
        self,
        name: str,
        settings: DrafterSettings,
        *,
        host: Callable[[], str],
        coordinator: AddressSource,
        security: Security | None = None,
        placed: Mapping[str, object] | None = None,
    ) -> None:
        self.settings = settings
        self._coordinator = coordinator
        self._security = security
        self._loaded: tuple[Drafter, float] | None = None
        self._member: DrafterMember | None = None
        super().__init__(name, host, placed=placed)

    async def _serve(self, host: str, serving: Callable[[Address | None], None]) -> None:
        if self._loaded is None:
            self._loaded = await asyncio.to_thread(self._load)
        drafter, seconds_per_token = self._loaded
        self._member = DrafterMember(
            drafter,
            self._coordinator,
            instance=secrets.token_hex(8),
            name=self.name,
            max_sessions=self.settings.max_sessions,
            seconds_per_token=seconds_per_token,
            security=self._security,
            on_joined=lambda joined: serving(None),
        )
        try:
            await self._member.run()
        finally:
            self._member = None

    def _load(self) -> tuple[Drafter, float]:
        # Here, so that who only starts the actor elsewhere need not wait for all of transformers.
        from drafter_service.loading import drafter_of

        drafter = drafter_of(self.settings)
        return drafter, drafter.measure()

    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"kind": "drafter", "settings": self.settings.model_dump()}
        if self._member is not None:
            report = self._member.report().drafter
            facts |= {"sessions": report.sessions, "attached_to": list(report.attached_to)}
        return facts
