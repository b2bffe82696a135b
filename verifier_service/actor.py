"""The verifier as an actor: a plain class, which whoever runs a cluster wraps; Ray is not imported here.

The gRPC server runs inside it: text and drafts never travel as calls of the actor.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from transport.address import Address
from transport.hosting import SelfStarting
from transport.joining import AddressSource
from transport.security import Security
from verifier_service.engine import Engine
from verifier_service.fleet_member import VerifierMember
from verifier_service.instruments import Instruments, NoInstruments
from verifier_service.server import VerifierServer
from verifier_service.settings import VerifierSettings
from verifier_service.verifier_choice import verifier_of


class VerifierActor(SelfStarting):
    """A verifier that starts itself and comes back after a failure.

    ``port`` 0: a free one. ``host``: asked for this machine's address, at which it listens and is reached.
    ``instruments``: asked once for where figures go, given the actor's name. ``security`` None: as its
    environment says.
    """

    traces_as = "verifier"

    def __init__(
        self,
        name: str,
        settings: VerifierSettings,
        *,
        port: int = 0,
        host: Callable[[], str],
        coordinator: AddressSource,
        instruments: Callable[[str], Instruments] = lambda name: NoInstruments(),
        security: Security | None = None,
        placed: Mapping[str, object] | None = None,
    ) -> None:
        self.settings = settings
        self._security = security
        self._port = port
        self._instruments = instruments(name)
        self._coordinator = coordinator
        self._engine: Engine | None = None
        self._server: VerifierServer | None = None
        super().__init__(name, host, placed=placed)

    async def _serve(self, host: str, serving: Callable[[Address | None], None]) -> None:
        if self._engine is None:
            self._engine = await asyncio.to_thread(self._load)
        verifier = verifier_of(self._engine, self.settings, self._instruments)
        self._server = server = VerifierServer(verifier, security=self._security)
        bound = await server.start(Address(host, self._port))
        try:
            member = VerifierMember(
                verifier,
                self._coordinator,
                instance=secrets.token_hex(8),
                name=self.name,
                advertised=str(bound),
                security=self._security,
                on_joined=lambda joined: serving(bound),  # before that, the fleet does not know of it
            )
            await member.run()
            if member.refusal is not None:  # nobody would ever find it
                raise member.refusal
            await asyncio.Event().wait()  # refused later: those whom it serves it goes on serving
        finally:
            self._server = None
            await asyncio.shield(server.stop(grace=self.settings.grace))

    async def drain(self, seconds: float) -> int:
        """Take no new sessions; those still running after so many seconds are handed over. Returns how many were.

        The clients of those resume elsewhere by themselves. Idempotent.
        """
        if self._server is None:
            return 0
        verifier = self._server.verifier
        verifier.drain()
        deadline = time.monotonic() + seconds
        while verifier.sessions and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        left = len(verifier.sessions)
        verifier.hand_over()
        return left

    def _load(self) -> Engine:
        # Here, so that who only starts the actor elsewhere need not wait for all of transformers.
        from verifier_service.engine_choice import load_engine

        return load_engine(self.settings)

    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"kind": "verifier", "settings": self.settings.model_dump() | {"port": self._port}}
        if self._server is not None:
            verifier = self._server.verifier
            facts |= {
                "device": verifier.engine.device_name,
                "dtype": verifier.engine.dtype_name,
                "sessions": len(verifier.sessions),
                "draining": verifier.draining,
                "drafters": len(verifier.roster.links),
                "kv_cache_bytes": verifier.engine.kv_cache_bytes,
            }
        return facts
