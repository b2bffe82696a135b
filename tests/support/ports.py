"""Ports of this machine for services that must be given one before they start."""

from __future__ import annotations

import socket


def free_port() -> int:
    """One that nobody listens at now; somebody else may take it before the test does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
