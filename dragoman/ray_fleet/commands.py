"""`dragoman fleet`: read the file, get into the cluster, let the launcher do it, show what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from dragoman.curl_command import curl
from dragoman.fleet import fetch_status, status_as_dict
from dragoman.fleet_view import fleet_view
from dragoman.ray_fleet import cluster
from dragoman.ray_fleet.config import FleetFile, read_fleet
from dragoman.ray_fleet.discovery import loopback, own_host
from dragoman.ray_fleet.labels import label_sets
from dragoman.ray_fleet.launcher import Launcher
from dragoman.ray_fleet.local_ray import LocalRay
from dragoman.ray_fleet.standing import Standing, unlike
from dragoman.ray_fleet.stopping import stoppable
from dragoman.record_table import record_table
from dragoman.terminal import err
from speculation.errors import ConnectionFailedError, DragomanError, InputError
from transport.address import Address
from transport.identity import Role
from transport.security import Security
from transport.servers import check_bindable

#: Seconds for further nodes of a Ray that was started here, after its head.
OWN_NODES_SECONDS = 60.0
#: How often that Ray is started, if one of its nodes ends before the fleet is up.
OWN_RAY_STARTS = 2


@stoppable()
def run_up(config: Path, address: str, *, wait_seconds: float | None, as_json: bool) -> None:
    """``wait_seconds`` None: as the file says."""
    fleet = read_fleet(config)
    cluster.installed_version()
    found = cluster.find(address)
    wait = fleet.wait_seconds if wait_seconds is None else wait_seconds
    if found is None:
        found, standings = up_on_own_ray(fleet, wait)
    else:
        with _launcher(found) as launcher:
            standings = launcher.up(fleet, wait_seconds=wait)
    if as_json:
        print(json.dumps({"ray": str(found), "actors": [standing.to_json() for standing in standings]}))
    else:
        console = Console()
        console.print(actor_table(standings, width=console.width))
        console.print(how_to_get_text(standings, fleet), highlight=False, soft_wrap=True)


@stoppable()
def run_status(address: str, *, as_json: bool, security: Security, config: Path | None = None) -> None:
    """The actors by Ray's word, and the fleet by the coordinator's; with a file, what is not as the file has it.

    ``security``: towards the coordinator; in plaintext, if it has no TLS: the network of a Ray cluster is trusted.
    """
    file = read_fleet(config) if config is not None else None
    with _launcher(_existing(address)) as launcher:
        standings = launcher.status()
    unlike_file = unlike(file, standings) if file is not None else []
    problem, fleet = "", None
    coordinator = next((one.facts.get("address") for one in standings if one.kind == "coordinator"), None)
    if coordinator:
        try:
            fleet = asyncio.run(fetch_status(coordinator, security.model_copy(update={"allow_plaintext": True})))
        except DragomanError as error:
            problem = str(error)
    if as_json:
        told: dict[str, Any] = {"actors": [standing.to_json() for standing in standings]}
        told |= {"fleet": status_as_dict(fleet) if fleet is not None else None, "problem": problem}
        print(json.dumps(told | ({"unlike_file": unlike_file} if file is not None else {})))
        return
    console = Console()
    if not standings:
        console.print("No actor of a fleet runs in this cluster; `dragoman fleet up` starts one.", highlight=False)
        return
    console.print(actor_table(standings, width=console.width))
    if fleet is not None:
        console.print(fleet_view(fleet, width=console.width))
    elif problem:
        console.print(problem, highlight=False, soft_wrap=True)
    for line in unlike_file:
        console.print(line, highlight=False, soft_wrap=True)


@stoppable()
def run_scale(config: Path, address: str, sizes: Sequence[str], *, drain_seconds: float) -> None:
    fleet = read_fleet(config)
    wanted: dict[str, int] = {}
    for name, count in map(_size, sizes):
        if name in wanted:
            raise InputError("size", f"{name}={count}", f"comes after {name}={wanted[name]}", remedy="give one of them")
        wanted[name] = count
    with _launcher(_existing(address)) as launcher:
        launcher.scale(fleet, wanted, drain_seconds=drain_seconds)
        console = Console()
        console.print(actor_table(launcher.status(), width=console.width))


@stoppable()
def run_drain(address: str, replica: str, *, drain_seconds: float) -> None:
    with _launcher(_existing(address)) as launcher:
        launcher.drain(replica, seconds=drain_seconds)


@stoppable()
def run_down(address: str) -> None:
    """Nothing there is nothing to do."""
    cluster.installed_version()
    found = cluster.find(address)
    if found is None:
        err.print("no Ray runs here", highlight=False)
        return
    with _launcher(found) as launcher:
        launcher.down()
    local = LocalRay.running()
    if local is not None and local.address == found:
        local.stop()
        err.print("the local Ray is gone", highlight=False)


def _size(text: str) -> tuple[str, int]:
    found = re.fullmatch(r"([^=]+)=(\d{1,9})", text)
    if found is None:
        raise InputError("size", text, "is not GROUP=REPLICAS", remedy="write for example drafters=3")
    return found[1], int(found[2])


def _existing(address: str) -> Address:
    cluster.installed_version()
    found = cluster.find(address)
    if found is None:
        raise ConnectionFailedError(
            "no Ray runs on this machine", remedy="`dragoman fleet up` starts one; or give --address host:port"
        )
    return found


@contextlib.contextmanager
def _launcher(address: Address) -> Iterator[Launcher]:
    ray = cluster.connect(address)
    local = LocalRay.running()
    alone = local is not None and local.address == address
    try:
        yield Launcher(
            ray,
            note=lambda words: err.print(words, highlight=False, soft_wrap=True, style="dim"),
            host=loopback if alone else own_host,
            alone=alone,
        )
    finally:
        ray.shutdown()


def up_on_own_ray(fleet: FleetFile, wait: float) -> tuple[Address, list[Standing]]:
    """A Ray is started, once more if one of its nodes ends by itself. Raises what ``Launcher.up`` raises."""
    for attempt in range(OWN_RAY_STARTS):
        local = _start_local(fleet)
        found = local.use()
        try:
            with _launcher(found) as launcher:
                # Its nodes are on their way, whatever was asked of others.
                return found, launcher.up(fleet, wait_seconds=max(wait, OWN_NODES_SECONDS))
        except Exception as error:  # Ray's own among them, when its head is gone
            words = local.last_words()
            if words is None:
                raise
            local.stop()
            if attempt + 1 == OWN_RAY_STARTS:
                raise DragomanError(f"a node of the local Ray ended by itself; its last words:\n{words}") from error
            err.print("a node of it ended by itself", highlight=False, style="dim")
    raise AssertionError


def _start_local(fleet: FleetFile) -> LocalRay:
    """As many nodes as the labels need; each has CPUs for all, because all of them are this one machine.

    Raises ConnectionFailedError, before Ray is started, if the gateway's port is taken here.
    """
    if fleet.gateway is not None and fleet.gateway.replicas:
        check_bindable(Address(fleet.gateway.host or loopback(), fleet.gateway.port), option="gateway.port")
    err.print("no Ray runs here: starting one", highlight=False, style="dim")
    needed = sum(group.replicas * group.num_cpus for group in fleet.groups) + fleet.coordinator.num_cpus
    cpus = max(len(os.sched_getaffinity(0)), int(needed + 0.999))
    return LocalRay.start(label_sets(place.labels for place in fleet.places), num_cpus=cpus)


def actor_table(standings: Sequence[Standing], *, width: int) -> RenderableType:
    """One line an actor, or several where ``width`` leaves no room for that."""
    rows = []
    for one in standings:
        settings = one.facts.get("settings", {})
        problem = one.why or one.facts.get("problem", "")
        state = f"{one.state}: {problem}" if problem else one.state
        sessions = str(one.facts.get("sessions", ""))
        rows.append((one.name, one.kind, state, one.where, str(settings.get("model", "")), sessions))
    return record_table(width, ("actor", "kind", "state", "at", "model"), ("sessions",), rows)


def how_to_get_text(standings: Sequence[Standing], fleet: FleetFile) -> str:
    """Addresses, and commands to paste."""
    security = fleet.security
    coordinator = next(one.facts["address"] for one in standings if one.kind == "coordinator")
    reached = f"--coordinator {coordinator}"
    if security.serves_tls:
        reached += " --tls-ca CA --tls-cert CERT --tls-key KEY"
    elif not Address.parse(coordinator, field="coordinator").loopback:
        reached += " --allow-plaintext"
    words = (
        f"\ncoordinator at {coordinator}\n"
        f"  text:      dragoman generate {reached} --prompt '...'\n"
        f"  watch:     dragoman top {reached}\n"
        f"  one more drafter: dragoman drafter --model smollm2-135m {reached}"
    )
    if fleet.gateway is not None:
        serving = fleet.gateway.serving(security.of_role(Role.CLIENT))
        for url in dict.fromkeys(one.facts["url"] for one in standings if one.kind == "gateway"):
            words += f"\ngateway at {url}/v1\n{curl(url, serving)}"
    return words
