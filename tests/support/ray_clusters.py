"""Ray clusters of several nodes on this one machine, with fleets of tiny models on them."""

from __future__ import annotations

import asyncio
import contextlib
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.ports import free_port
from dragoman.client import Client
from dragoman.fleet_client import FleetClient
from dragoman.ray_fleet import cluster as ray_cluster
from dragoman.ray_fleet.config import FleetFile
from dragoman.ray_fleet.launcher import Launcher
from dragoman.ray_fleet.standing import Standing
from speculation.protocol.completion import Completion
from speculation.protocol.generation import Chunk
from speculation.protocol.messages import Prompt
from speculation.sampling.params import SamplingParams
from tests.support.service_drivers import described, serving
from transport.address import Address

#: A dead node is noticed within about two seconds, instead of fifteen.
QUICK = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    # A dead one refuses at once; one that lives may be slow to answer on a busy machine.
    "RAY_health_check_timeout_ms": "10000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_metrics_report_interval_ms": "500",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}
EDGE, ACCELERATOR = "edge", "accelerator"
PROMPT = Prompt(text="The heron")
SAMPLING = SamplingParams(temperature=0.8, seed=4)
TOKENS = 300


@dataclass
class RayCluster:
    """``ray``: connected to it, in this process."""

    nodes: Any
    ray: Any
    models: dict[str, Path]
    lines: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Of the head's control service."""
        return str(self.nodes.address)

    def add(self, role: str, *, cpus: int = 8, gpus: int = 0) -> Any:
        """One more node, with this role as its label."""
        return self.nodes.add_node(num_cpus=cpus, num_gpus=gpus, labels={"role": role})

    def kill(self, node: Any) -> None:
        """Like a machine that loses its power: every process at once, the actors too."""
        actors = _actors_on(node)
        for process in actors:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()  # no text ends while Ray's own processes are killed
        self.nodes.remove_node(node, allow_graceful=False)
        for process in actors:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def node_of(self, standing: Standing) -> Any:
        """The node on which the actor runs."""
        pid = standing.facts["pid"]
        nodes = self.nodes.list_all_nodes()
        return next(node for node in nodes if any(process.pid == pid for process in _actors_on(node)))

    @property
    def logs(self) -> Path:
        """The folder in which the head keeps the logs."""
        return Path(self.nodes.head_node.get_logs_dir_path())

    def metrics(self) -> str:
        """What Ray's agents on all nodes export."""
        texts = []
        for node in self.ray.nodes():
            if node["Alive"]:
                url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
                with urllib.request.urlopen(url, timeout=10) as answer:
                    texts.append(answer.read().decode())
        return "".join(texts)

    @property
    def launcher(self) -> Launcher:
        """A new one, whose lines go to ``lines``."""
        return Launcher(self.ray, note=self.lines.append)

    def fleet(self, *, targets: int | list = 1, drafters: int | list = 1, gateways: int = 0) -> FleetFile:
        """So many replicas of the tiny target and drafter, or groups of one's own; gateways on the head node."""
        group = {"dtype": "float32", "threads": 1}
        target = group | {"name": "heron", "model": str(self.models["target"]), "replicas": targets, "num_cpus": 1}
        # Drafting cannot pay for models this small, and is to be tested all the same.
        target |= {"adaptive": False, "plan": {"patience": 0.02}}
        drafter = group | {"name": "edge", "model": str(self.models["drafter"]), "replicas": drafters, "num_cpus": 0.5}
        values: dict[str, Any] = {
            "coordinator": {"port": free_port()},
            "targets": targets if isinstance(targets, list) else [target | {"labels": {"role": ACCELERATOR}}],
            "drafters": drafters if isinstance(drafters, list) else [drafter],
            "start_seconds": 400,
        }
        if gateways:
            values["gateway"] = {"replicas": gateways, "port": free_port()}
        return FleetFile.model_validate(values)


def _actors_on(node: Any) -> list[psutil.Process]:
    raylet = node.all_processes["raylet"][0].process
    return psutil.Process(raylet.pid).children(recursive=True)


def _started(roles: Sequence[str], attempts: int = 3) -> Any:
    """Head and nodes. Ray gives a node 30 s to start, which on a busy machine is not always enough; how it says so
    depends on what was late. That Ray starts is not what these tests are about."""
    from ray.cluster_utils import Cluster

    before = {process.pid for process in psutil.Process().children(recursive=True)}
    try:
        # Ports of its own: the machine may have a Ray already.
        head = {"num_cpus": 0, "include_dashboard": False, "dashboard_port": free_port()}
        nodes = Cluster(initialize_head=True, head_node_args=head)
        for role in roles:
            nodes.add_node(num_cpus=8, labels={"role": role})
        return nodes
    except Exception:
        if attempts == 1:
            raise
    for process in psutil.Process().children(recursive=True):
        if process.pid not in before:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    return _started(roles, attempts - 1)


@contextlib.contextmanager
def cluster_of(roles: Sequence[str], models: dict[str, Path], home: Path) -> Iterator[RayCluster]:
    """A head that hosts the coordinator at most, and one node for each role."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUICK.items():
            patch.setenv(name, value)
        patch.setenv("HOME", str(home))
        patch.delenv("RAY_ADDRESS", raising=False)
        nodes = _started(roles)
        try:
            ray = ray_cluster.connect(Address.parse(nodes.address, field="address"))
            try:
                yield RayCluster(nodes, ray, models)
            finally:
                ray.shutdown()
        finally:
            nodes.shutdown()


@contextlib.asynccontextmanager
async def fleet_on(cluster: RayCluster, fleet: FleetFile) -> AsyncIterator[dict[str, Standing]]:
    """The fleet up, and its actors by name; down again afterwards."""
    try:
        standings = await asyncio.to_thread(cluster.launcher.up, fleet, wait_seconds=60)
        yield {standing.name: standing for standing in standings}
    finally:
        await asyncio.to_thread(cluster.launcher.down)


async def reference(models: dict[str, Path]) -> bytes:
    """The text of the same engine, run in this process, without Ray, drafter or coordinator."""
    from language_models.causal_lm import CausalLM
    from verifier_service.transformers_engine import TransformersEngine

    engine = TransformersEngine(CausalLM.load(str(models["target"]), dtype="float32", threads=1))
    async with serving(engine) as (_, address), Client(address) as client:
        return (await text_of(client, draft=False)).data


async def text_of(client: Client | FleetClient, **kwargs: Any) -> Completion:
    """The text that all these tests ask for."""
    return await client.complete(PROMPT, sampling=SAMPLING, max_tokens=TOKENS, ignore_end=True, **kwargs)


async def drafted_text_of(client: Client | FleetClient, seconds: float = 240.0) -> Completion:
    """The first of these texts in which a drafter took part: one may end before its first span."""
    async with asyncio.timeout(seconds):
        while not (completion := await text_of(client)).stats.spans:
            pass
    return completion


async def struck_text(client: FleetClient, strike: Callable[[], None]) -> Completion:
    """The text, after some chunks of which ``strike`` is called."""
    chunks = 0

    def on_chunk(_: Chunk) -> None:
        nonlocal chunks
        chunks += 1
        if chunks == 10:
            strike()

    return await text_of(client, on_chunk=on_chunk)


async def keep_writing(client: Client | FleetClient, enough: asyncio.Event) -> list[bytes]:
    """Text after text until it is enough."""
    texts: list[bytes] = []
    while not texts or not enough.is_set():
        texts.append((await text_of(client)).data)
    return texts


async def at_rest(address: str, *, drafters: int) -> None:
    """No session left at this verifier, no KV memory held, and so many drafters there for the next one."""
    async with Client(address) as client:
        await described(client, sessions=0, kv_cache_bytes=0, drafters=drafters)


async def standing(cluster: RayCluster, condition: Any, seconds: float = 240.0) -> dict[str, Standing]:
    """Until the actors stand so."""
    until = time.monotonic() + seconds
    while True:
        found = {one.name: one for one in await asyncio.to_thread(cluster.launcher.status)}
        if condition(found):
            return found
        assert time.monotonic() < until, {name: (one.state, one.why) for name, one in found.items()}
        await asyncio.sleep(0.2)
