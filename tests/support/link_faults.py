"""What may happen to a link that goes through the fault proxy, by name."""

from __future__ import annotations

import pytest

from benchmarks.fault_proxy import FaultProxy
from drafter_service import client as drafter_client

FAULTS = ("cut", "half_open_up", "half_open_down", "reset", "refuse")


def inflict(proxy: FaultProxy, fault: str) -> None:
    """One of ``FAULTS``, until ``mend``."""
    match fault:
        case "cut":
            proxy.cut()
        case "half_open_up":
            proxy.half_open("up")
        case "half_open_down":
            proxy.half_open("down")
        case "reset":
            proxy.reset()
        case "refuse":
            proxy.refuse()
            proxy.reset()
        case _:
            raise ValueError(f"no fault is named {fault}")


def mend(proxy: FaultProxy) -> None:
    """The link is as it was; what was held passes."""
    proxy.restore()
    proxy.refuse(False)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """In each module that has it as an attribute: drafters dial a verifier again that is silent for 1.5 s."""
    monkeypatch.setattr(drafter_client, "VERIFIER_SILENCE_SECONDS", 1.5)
