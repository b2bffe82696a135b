"""The actors of these tests listen at this machine's own address, where Ray's nodes are."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

#: Ray runs its workers at niceness 15: beside a process that keeps all cores busy they would get a thirtieth of them.
os.environ.setdefault("RAY_worker_niceness", "0")


@pytest.fixture(scope="module")
def ray_folder() -> Iterator[Path]:
    """For Ray's own files. Paths of its sockets may have 107 bytes, so it is not below the folder of the test."""
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def _ray_has_a_trusted_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAGOMAN_ALLOW_PLAINTEXT", "1")
