"""Nodes and actors of a Ray cluster are killed in mid-text; each test ends in the same bytes and nothing left over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dragoman.fleet_client import FleetClient
from tests.support.ray_clusters import (
    ACCELERATOR,
    EDGE,
    RayCluster,
    at_rest,
    cluster_of,
    drafted_text_of,
    fleet_on,
    reference,
    standing,
    struck_text,
    text_of,
)

pytestmark = pytest.mark.ray
CONTROL = "control"


@pytest.fixture(scope="module")
def cluster(tiny_qwen2: Path, tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    pytest.importorskip("ray")
    models = {"target": tiny_qwen2, "drafter": tiny_llama}
    with cluster_of([EDGE, ACCELERATOR, CONTROL], models, tmp_path_factory.mktemp("home")) as made:
        yield made


async def test_a_drafters_node_is_lost(cluster: RayCluster):
    async with fleet_on(cluster, cluster.fleet()) as actors:
        node = cluster.node_of(actors["edge/0"])
        cluster.add(EDGE)
        async with FleetClient(actors["coordinator"].facts["address"]) as client:
            await at_rest(actors["heron/0"].facts["address"], drafters=1)
            text = await struck_text(client, lambda: cluster.kill(node))
            # It was restarted on the other node, by Ray alone.
            found = await standing(cluster, lambda now: now["edge/0"].state == "serving")
            assert found["edge/0"].facts["pid"] != actors["edge/0"].facts["pid"]
            await at_rest(actors["heron/0"].facts["address"], drafters=1)
            again = await drafted_text_of(client)
        assert text.data == again.data == await reference(cluster.models)
        await at_rest(actors["heron/0"].facts["address"], drafters=1)


async def test_a_verifiers_node_is_lost_and_its_actor_restarts_elsewhere(cluster: RayCluster):
    async with fleet_on(cluster, cluster.fleet()) as actors:
        node = cluster.node_of(actors["heron/0"])
        cluster.add(ACCELERATOR)
        async with FleetClient(actors["coordinator"].facts["address"], attempts=1000, patience=240) as client:
            text = await struck_text(client, lambda: cluster.kill(node))
        assert text.data == await reference(cluster.models)
        assert text.resumes > 0 and text.replayed_tokens > 0
        found = await standing(cluster, lambda now: now["heron/0"].state == "serving")
        assert found["heron/0"].facts["pid"] != actors["heron/0"].facts["pid"]
        await at_rest(found["heron/0"].facts["address"], drafters=1)


async def test_a_verifiers_node_is_lost_and_another_replica_goes_on(cluster: RayCluster):
    cluster.add(ACCELERATOR)
    fleet = cluster.fleet(targets=2)
    apart = fleet.targets[0].model_copy(update={"num_cpus": 5})  # of the 8 that a node has
    async with fleet_on(cluster, fleet.model_copy(update={"targets": [apart]})) as actors:
        nodes = {name: cluster.node_of(actors[name]) for name in ("heron/0", "heron/1")}
        assert nodes["heron/0"] is not nodes["heron/1"]
        struck: list[str] = []

        def strike() -> None:
            """At the replica that writes the text."""
            found = {one.name: one.facts.get("sessions") for one in cluster.launcher.status() if one.name in nodes}
            struck.extend(name for name, sessions in found.items() if sessions)
            cluster.kill(nodes[struck[0]])

        async with FleetClient(actors["coordinator"].facts["address"]) as client:
            text = await struck_text(client, strike)
        assert text.data == await reference(cluster.models)
        assert text.resumes > 0 and text.replayed_tokens > 0
        [other] = nodes.keys() - set(struck)
        await at_rest(actors[other].facts["address"], drafters=1)


async def test_the_coordinator_is_killed_and_then_its_node(cluster: RayCluster):
    fleet = cluster.fleet()
    control = fleet.coordinator.model_copy(update={"labels": {"role": CONTROL}, "num_cpus": 1})
    async with fleet_on(cluster, fleet.model_copy(update={"coordinator": control})) as actors:
        address = actors["coordinator"].facts["address"]
        handle = cluster.ray.get_actor("coordinator", "dragoman")
        expected = await reference(cluster.models)
        async with FleetClient(address) as client:
            text = await struck_text(client, lambda: cluster.ray.kill(handle, no_restart=False))
        assert text.data == expected
        back = await _steering_again(cluster, actors["coordinator"].facts["pid"])
        node = cluster.node_of(back)
        cluster.add(CONTROL)
        async with FleetClient(back.facts["address"]) as client:
            text = await struck_text(client, lambda: cluster.kill(node))
        assert text.data == expected
        back = await _steering_again(cluster, back.facts["pid"])
        async with FleetClient(back.facts["address"]) as client:
            assert (await text_of(client)).data == expected
        await at_rest(actors["heron/0"].facts["address"], drafters=1)


async def _steering_again(cluster: RayCluster, before: int):
    """The coordinator as it stands once another process of it has all members."""

    def whole(now):
        told = now["coordinator"]
        return (
            told.state == "serving"
            and told.facts["pid"] != before
            and told.facts["verifiers"] == 1 == told.facts["drafters"]
        )

    return (await standing(cluster, whole))["coordinator"]
