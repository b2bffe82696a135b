"""Finding a Ray cluster and getting into it, or starting a local one."""

from __future__ import annotations

import importlib.metadata
import logging
import os
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from dragoman.ray_fleet.local_ray import LocalRay
from dragoman.ray_fleet.loopback_node import stay_on_loopback
from dragoman.ray_fleet.probe import MODE, probe
from dragoman.ray_fleet.stopping import handler_kept
from speculation.errors import ConnectionFailedError, DragomanError, InputError
from transport.address import Address

#: Of all actors of the fleet.
NAMESPACE: Final = "dragoman"
#: Of Ray's control service.
PORT: Final = 6379
#: What runs in the actors.
_PACKAGES = (
    "dragoman",
    "coordinator",
    "gateway",
    "verifier_service",
    "drafter_service",
    "engine",
    "language_models",
    "speculation",
    "protos",
    "transport",
)


def installed_version() -> str:
    """Of Ray, which is not imported. Raises DragomanError if it is not installed."""
    try:
        return importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        raise DragomanError("Ray is not installed", remedy="pip install 'dragoman[ray]'") from None


def find(address: str) -> Address | None:
    """The cluster that ``address`` (auto, local, host:port) means; None: there is none on this machine.

    auto: RAY_ADDRESS, else the local Ray that `fleet up` started, else the cluster that `ray start` last joined here.
    Raises InputError.
    """
    local = LocalRay.running()
    if address == "local":
        return local.use() if local else None
    named = address if address != "auto" else os.environ.get("RAY_ADDRESS", "auto")
    if named not in ("", "auto"):
        if "://" in named:
            raise InputError(
                "address",
                named,
                "is not the address of Ray's control service",
                remedy="write host:port, as `ray start` did",
            )
        found = Address.parse(named, field="address", default_port=PORT)
        return local.use() if local and local.address == found else found
    return local.use() if local else _joined_here()


def _joined_here() -> Address | None:
    """From the note that `ray start` leaves; None if nothing listens there any more."""
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    try:
        found = Address.parse(
            (Path(folder) / "ray" / "ray_current_cluster").read_text(), field="address", default_port=PORT
        )
        probe(found)
    except (OSError, InputError):
        return None
    except ConnectionFailedError as error:
        if "nothing listens" in error.message:
            return None
        raise
    return found


def connect(address: Address) -> ModuleType:
    """Ray, connected to the cluster. Raises ConnectionFailedError with the true reason if that cannot be."""
    own = installed_version()
    probed = probe(address)
    if probed.version and probed.version != own:
        raise ConnectionFailedError(
            f"the cluster at {address} runs Ray {probed.version}, and here is {own}",
            remedy=f"pip install 'ray[default]=={probed.version}'",
        )
    # Ray reads it once, when it is imported.
    os.environ[MODE] = probed.auth_mode
    # What an actor raises is shown as one line, by whoever asked; Ray would log that of earlier, forgotten calls too.
    os.environ["RAY_IGNORE_UNHANDLED_ERRORS"] = "1"
    if address.host in ("127.0.0.1", "localhost"):
        stay_on_loopback()
    import ray

    try:
        with handler_kept():
            ray.init(
                address=str(address),
                namespace=NAMESPACE,
                log_to_driver=False,
                logging_level=logging.WARNING,
                runtime_env=_runtime_env(),
            )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ConnectionFailedError(f"Ray at {address}: {reason}") from error
    return ray


def _runtime_env() -> dict[str, Any]:
    """The code that the actors run is this one here, whatever is installed on their machines.

    A job that was submitted with it as its working directory has it there already.
    """
    environment: dict[str, Any] = {"worker_process_setup_hook": "dragoman.ray_fleet.discovery.log_what_happens"}
    root = Path(__file__).resolve().parents[2]
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ or root != Path.cwd().resolve():
        environment["py_modules"] = [str(root / package) for package in _PACKAGES]
    return environment
