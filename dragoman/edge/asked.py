"""What `dragoman edge install` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from drafter_service.settings import DrafterSettings
from transport.security import Security


@dataclass(frozen=True, slots=True)
class Asked:
    """``root`` None: this machine, whose systemd starts it. ``program`` None: that which runs now.

    ``memory_max``: bytes. ``request``: a key is made here, and a request for its certificate.
    """

    settings: DrafterSettings
    security: Security
    verifier: str | None
    coordinator: str | None
    name: str | None = None
    memory_max: int | None = None
    root: Path | None = None
    program: Path | None = None
    bind_paths: bool = False
    request: bool = False
    verbose: bool = False
