"""A fleet on a Ray cluster of several nodes: the same text, and actors that come and go while texts run.

One fleet serves the tests, each of which asks for the size that it needs: an actor takes ten seconds to start.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from dragoman.fleet_client import FleetClient
from dragoman.processes import child
from dragoman.ray_fleet.config import FleetFile
from dragoman.ray_fleet.standing import Standing
from speculation.protocol.generation import Chunk
from tests.support.ray_clusters import (
    ACCELERATOR,
    EDGE,
    PROMPT,
    SAMPLING,
    TOKENS,
    RayCluster,
    at_rest,
    cluster_of,
    drafted_text_of,
    fleet_on,
    keep_writing,
    reference,
    standing,
    text_of,
)
from transport.address import Address
from transport.servers import check_bindable

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster(tiny_qwen2: Path, tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    pytest.importorskip("ray")
    models = {"target": tiny_qwen2, "drafter": tiny_llama}
    with cluster_of([EDGE, ACCELERATOR], models, tmp_path_factory.mktemp("home")) as made:
        yield made


@pytest.fixture(scope="module")
def fleet(cluster: RayCluster) -> Iterator[FleetFile]:
    """Nothing of it runs until a test has asked for a size."""
    yield cluster.fleet()
    cluster.launcher.down()


async def sized(cluster: RayCluster, fleet: FleetFile, *, targets: int, drafters: int) -> dict[str, Standing]:
    """As many as that serve, whatever the test before has left."""
    sizes = {"target": targets, "drafters": drafters}
    await asyncio.to_thread(cluster.launcher.up, fleet, wait_seconds=60)
    found = await asyncio.to_thread(cluster.launcher.scale, fleet, sizes, drain_seconds=5)
    for one in verifiers(standings := {one.name: one for one in found}):
        await at_rest(one.facts["address"], drafters=drafters)
    return standings


def verifiers(standings: dict[str, Standing]) -> list[Standing]:
    return [one for one in standings.values() if one.kind == "verifier"]


async def watch(cluster: RayCluster, found: dict[str, str]) -> None:
    """The newest values of the metrics of a verifier that Ray exported: a gauge is there as long as it is set."""
    pattern = re.compile(r'^ray_(?:vllm|dragoman)_(\w+)\{.*replica="heron/0".*\} (\S+)$', re.MULTILINE)
    while True:
        found |= pattern.findall(await asyncio.to_thread(cluster.metrics))
        await asyncio.sleep(0.2)


async def test_the_text_is_that_of_the_engine_without_ray_and_rays_own_metrics_and_logs_tell_of_it(
    cluster: RayCluster, fleet: FleetFile
):
    actors = await sized(cluster, fleet, targets=1, drafters=1)
    found: dict[str, str] = {}
    watching = asyncio.create_task(watch(cluster, found))
    async with FleetClient(actors["coordinator"].facts["address"]) as client:
        text = await text_of(client)
    expected = {
        "e2e_request_latency_seconds_count": 1.0,
        "generation_tokens_total": TOKENS,
        "spec_decode_num_accepted_tokens_total": text.stats.accepted_tokens,
    }
    told = {"num_requests_running", "plan_width", "round_trip_seconds_sum", "speculation_length_count"}
    last: dict[str, float] = {}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(240):
            while last != expected or not told <= set(found):  # each is exported in its own time
                await asyncio.sleep(0.1)
                last = {name: float(found.get(name, 0)) for name in expected}
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert last == expected and told <= set(found)
    assert text.data == await reference(cluster.models)
    assert text.stats.accepted_tokens > 0
    await at_rest(actors["heron/0"].facts["address"], drafters=1)
    logs = "".join(path.read_text(errors="replace") for path in cluster.logs.glob("worker-*.err"))
    assert re.search(rf"session s-[0-9a-f]{{16}}: ends with {TOKENS} tokens", logs)


async def test_a_drained_verifier_hands_its_texts_over(cluster: RayCluster, fleet: FleetFile):
    actors = await sized(cluster, fleet, targets=2, drafters=1)
    enough = asyncio.Event()
    async with FleetClient(actors["coordinator"].facts["address"]) as client:
        writing = [asyncio.create_task(keep_writing(client, enough)) for _ in range(2)]
        busy = await standing(cluster, lambda now: any(one.facts.get("sessions") for one in verifiers(now)))
        drained = max(verifiers(busy), key=lambda one: one.facts["sessions"])
        await asyncio.to_thread(cluster.launcher.drain, drained.name, seconds=0.0)
        left = verifiers(await standing(cluster, lambda now: True))
        enough.set()
        texts = {text for written in await asyncio.gather(*writing) for text in written}
    assert {one.name for one in left} == {"heron/0", "heron/1"} - {drained.name}
    assert texts == {await reference(cluster.models)}
    await at_rest(left[0].facts["address"], drafters=1)
    # What is missing comes back by `up`, which tells what is not as the file has it.
    changed = {
        "targets": [fleet.targets[0].model_copy(update={"replicas": 2})],
        "drafters": [fleet.drafters[0].model_copy(update={"max_sessions": 2})],
    }
    cluster.lines.clear()
    again = await asyncio.to_thread(cluster.launcher.up, fleet.model_copy(update=changed), wait_seconds=0)
    assert [one.name for one in again] == ["coordinator", "heron/0", "heron/1", "edge/0"]
    assert [line for line in cluster.lines if "the file" in line] == [
        "edge/0 as started before: max_sessions 4 (the file has 2); to apply the file: "
        "`dragoman fleet drain edge/N` one by one, then `dragoman fleet up` or `scale`"
    ]


async def test_a_drained_verifier_may_finish_its_texts(cluster: RayCluster, fleet: FleetFile):
    actors = await sized(cluster, fleet, targets=2, drafters=1)
    drains: list[asyncio.Task[str]] = []

    async def drain() -> str:
        found = await standing(cluster, lambda now: any(one.facts.get("sessions") for one in verifiers(now)))
        busy = next(one.name for one in verifiers(found) if one.facts["sessions"])
        await asyncio.to_thread(cluster.launcher.drain, busy, seconds=60)
        return busy

    def on_chunk(_: Chunk) -> None:
        if not drains:
            drains.append(asyncio.create_task(drain()))

    async with FleetClient(actors["coordinator"].facts["address"]) as client:
        cluster.lines.clear()
        text = await text_of(client, on_chunk=on_chunk)
    assert text.data == await reference(cluster.models) and text.resumes == 0
    assert not any("over" in line for line in cluster.lines)
    drained = await drains[0]
    [left] = verifiers(await standing(cluster, lambda now: drained not in now))
    await at_rest(left.facts["address"], drafters=1)


async def test_a_drafter_beyond_the_cluster_joins_by_dialling_out(
    cluster: RayCluster, fleet: FleetFile, tiny_llama: Path
):
    """The same program without Ray, which knows nothing but the coordinator's address."""
    actors = await sized(cluster, fleet, targets=1, drafters=0)
    coordinator, verifier = actors["coordinator"].facts["address"], actors["heron/0"].facts["address"]
    command = ["drafter", f"--model={tiny_llama}", "--dtype=float32", "--threads=1", f"--coordinator={coordinator}"]
    async with child("drafter", command) as drafter, FleetClient(coordinator) as client:
        await drafter.ready()
        await at_rest(verifier, drafters=1)
        assert (await drafted_text_of(client)).data == await reference(cluster.models)
        await at_rest(verifier, drafters=1)
    await at_rest(verifier, drafters=0)


async def test_replicas_come_and_go_while_texts_run(cluster: RayCluster, fleet: FleetFile):
    actors = await sized(cluster, fleet, targets=1, drafters=1)
    enough = asyncio.Event()
    async with FleetClient(actors["coordinator"].facts["address"]) as client:
        writing = [asyncio.create_task(keep_writing(client, enough)) for _ in range(2)]
        found = []
        for sizes in ({"drafters": 3, "target": 2}, {"drafters": 1, "target": 1}):
            await asyncio.to_thread(cluster.launcher.scale, fleet, sizes, drain_seconds=5)
            found.append([one.name for one in await asyncio.to_thread(cluster.launcher.status)])
        enough.set()
        texts = {text for written in await asyncio.gather(*writing) for text in written}
    assert found == [
        ["coordinator", "heron/0", "heron/1", "edge/0", "edge/1", "edge/2"],
        ["coordinator", "heron/0", "edge/0"],
    ]
    assert texts == {await reference(cluster.models)}
    await at_rest(actors["heron/0"].facts["address"], drafters=1)
    await asyncio.to_thread(cluster.launcher.down)
    assert cluster.launcher.status() == []


async def through(gateway: Standing) -> str:
    """The same text over HTTP, over a connection of its own."""
    asked = {"prompt": PROMPT.text, "temperature": SAMPLING.temperature, "seed": SAMPLING.seed}
    asked |= {"max_tokens": TOKENS, "ignore_eos": True}
    async with httpx.AsyncClient(base_url=gateway.facts["url"], trust_env=False, timeout=240) as http:
        assert (await http.get("/health")).status_code == 200
        response = await http.post("/v1/completions", json=asked)
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["text"]


def gateways(standings: dict[str, Standing]) -> list[Standing]:
    return [one for one in standings.values() if one.kind == "gateway"]


async def test_gateways_share_a_port_and_one_of_them_is_killed(cluster: RayCluster):
    fleet = cluster.fleet(drafters=0, gateways=2)
    assert fleet.gateway is not None
    async with fleet_on(cluster, fleet) as actors:
        first, second = gateways(actors)
        url = first.facts["url"]
        assert url == second.facts["url"] and first.facts["pid"] != second.facts["pid"]
        async with FleetClient(actors["coordinator"].facts["address"]) as client:
            expected = (await text_of(client)).text
        assert await through(first) == expected
        process = psutil.Process(first.facts["pid"])
        process.kill()
        process.wait(60)
        for _ in range(16):  # new connections, each of which would go to the one that is gone as often as not
            assert (await asyncio.to_thread(httpx.get, f"{url}/health", trust_env=False, timeout=60)).status_code == 200
        assert await through(second) == expected
        back = await standing(cluster, lambda now: now["gateway/0"].state == "serving")
        assert back["gateway/0"].facts["pid"] != first.facts["pid"]
        # A verifier that comes back at another port is found by both.
        verifier = actors["heron/0"]
        handle = cluster.ray.get_actor("verifier/heron/0", "dragoman")
        cluster.ray.kill(handle, no_restart=False)
        again = await standing(cluster, lambda now: now["heron/0"].state == "serving")
        assert again["heron/0"].facts["pid"] != verifier.facts["pid"]
        assert await through(second) == expected
        fewer = await asyncio.to_thread(cluster.launcher.scale, fleet, {"gateway": 1}, drain_seconds=5)
        assert [one.name for one in fewer] == ["coordinator", "gateway/0"] and await through(fewer[1]) == expected
        left = gateways(await standing(cluster, lambda now: "gateway/1" not in now))
        processes = [psutil.Process(one.facts["pid"]) for one in left]
        assert len(processes) == 1
    assert psutil.wait_procs(processes, timeout=60)[1] == []
    check_bindable(Address(left[0].facts["host"], fleet.gateway.port))
