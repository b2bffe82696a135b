"""What may happen to a link that goes through the fault proxy, by name."""

from __future__ import annotations

from benchmarks.fault_proxy import FaultProxy

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
