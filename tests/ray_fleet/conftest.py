"""The actors of these tests listen at this machine's own address, where Ray's nodes are."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _ray_has_a_trusted_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAGOMAN_ALLOW_PLAINTEXT", "1")
