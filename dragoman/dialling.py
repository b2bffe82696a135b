"""Where a command gets its text from: one verifier, or whichever the coordinator of a fleet names."""

from __future__ import annotations

from dataclasses import dataclass

from dragoman.client import PATIENCE, Client
from dragoman.fleet_client import FleetClient
from speculation.errors import InputError
from transport.address import DEFAULT_PORT
from transport.durations import parse_duration
from transport.security import Security


@dataclass(frozen=True, slots=True)
class Destination:
    """Addresses as a person gave them; with neither, the verifier of this machine. ``model``: of a fleet's.

    ``resume_for``: how long to look for another verifier of the fleet when one is lost, or for one at the address of
    the only one; a duration as people write it. ``security`` None: as the environment says.
    """

    verifier: str | None = None
    coordinator: str | None = None
    model: str = ""
    resume_for: str | None = None
    security: Security | None = None

    def __post_init__(self) -> None:
        if self.verifier is not None and self.coordinator is not None:
            remedy = "give one of the two"
            raise InputError("verifier", self.verifier, "comes with --coordinator as well", remedy=remedy)
        if self.model and self.coordinator is None:
            raise InputError("model", self.model, "is a choice among a fleet's", remedy="add --coordinator")

    def connect(self) -> Client | FleetClient:
        """Within an event loop; use as an async context manager. Raises InputError."""
        patience = PATIENCE if self.resume_for is None else parse_duration("resume-for", self.resume_for)
        if self.coordinator is not None:
            return FleetClient(self.coordinator, model=self.model, patience=patience, security=self.security)
        verifier = self.verifier or f"127.0.0.1:{DEFAULT_PORT}"
        return Client(verifier, resume=True, patience=patience, security=self.security)
