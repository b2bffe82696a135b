"""Ports of this machine for services that must be given one before they start."""

from __future__ import annotations

import os
import random
import socket
from typing import Final

#: Above those of Ray's workers, and below those that Linux gives connections that ask for none: a cluster opens
#: hundreds of these while it starts, and has had a port of ours among them.
_PORTS: Final = range(20_000, 32_768)
_chance = random.Random(os.urandom(16))
_given: set[int] = set()


def free_port() -> int:
    """One that nobody listens at now, at any address, and that this process has not been given before."""
    while True:
        port = _chance.choice(_PORTS)
        if port in _given:
            continue
        with socket.socket() as free:
            try:
                free.bind(("", port))
            except OSError:
                continue
        _given.add(port)
        return port
