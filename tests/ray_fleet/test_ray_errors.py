"""What goes wrong with a fleet on Ray is one line of cause and one of remedy, and the cause is the true one."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from benchmarks.ports import free_port
from dragoman.cli import main
from dragoman.ray_fleet.cluster import connect, find
from dragoman.ray_fleet.commands import run_up
from dragoman.ray_fleet.probe import probe
from speculation.errors import ConnectionFailedError, DragomanError, ModelTooLargeError, UnknownModelError
from tests.support.coordinators import coordinating
from tests.support.ray_clusters import (
    ACCELERATOR,
    EDGE,
    RayCluster,
    at_rest,
    cluster_of,
    drafted_text_of,
    fleet_on,
    reference,
)
from transport.address import Address

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster(tiny_qwen2: Path, tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    pytest.importorskip("ray")
    models = {"target": tiny_qwen2, "drafter": tiny_llama}
    with cluster_of([ACCELERATOR], models, tmp_path_factory.mktemp("home")) as made:
        yield made


def up(cluster: RayCluster, *, wait: float = 0.0, **changes) -> str:
    """What `fleet up` fails with; nothing that it started is left."""
    with pytest.raises(DragomanError) as caught:
        cluster.launcher.up(cluster.fleet(**changes), wait_seconds=wait)
    left = [(one.name, one.state) for one in cluster.launcher.status()]
    cluster.launcher.down()
    assert all(state in ("serving", "starting") for _, state in left), left
    return f"{type(caught.value).__name__} {caught.value}"


# ---- places and models --------------------------------------------------------------------------------------------


async def test_no_node_with_the_label_is_an_error_or_waited_for(cluster: RayCluster):
    words = await asyncio.to_thread(up, cluster)
    assert "edge has no place" in words and "no node carries the label role=edge" in words
    assert "role=accelerator; 8 CPU, 0 GPU" in words and "ray start" in words
    assert cluster.launcher.status() == []
    coming = asyncio.create_task(asyncio.to_thread(cluster.launcher.up, cluster.fleet(), wait_seconds=120))
    try:
        async with asyncio.timeout(120):
            while not any("waiting for a node for edge" in line for line in cluster.lines):
                await asyncio.sleep(0.05)
        cluster.add(EDGE)
        assert {one.state for one in await coming} == {"serving"}
    finally:
        await asyncio.gather(coming, return_exceptions=True)
        await asyncio.to_thread(cluster.launcher.down)


def test_a_model_that_does_not_fit_says_how_much_it_takes(cluster: RayCluster, tmp_path: Path):
    vast = tmp_path / "vast"
    shutil.copytree(cluster.models["target"], vast)
    header = json.dumps({"w": {"dtype": "BF16", "shape": [1 << 20, 1 << 20], "data_offsets": [0, 0]}}).encode()
    (vast / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    target = cluster.fleet().targets[0].model_dump() | {"model": str(vast)}
    words = up(cluster, targets=[target], drafters=[])
    assert ModelTooLargeError.__name__ in words and "vast does not fit" in words
    assert "float32 take 4096.0 GiB" in words and "are free on cpu" in words


def test_a_model_that_is_not_there(cluster: RayCluster):
    drafter = cluster.fleet().drafters[0].model_dump() | {"model": "/no/such/folder", "labels": {}}
    words = up(cluster, drafters=[drafter])
    assert UnknownModelError.__name__ in words and "/no/such/folder" in words


def test_more_gpus_than_there_are(cluster: RayCluster):
    target = cluster.fleet().targets[0].model_dump() | {"num_gpus": 0.5}
    assert "needs 0.5 GPU, more than any node with its labels" in up(cluster, targets=[target], drafters=[])


async def test_fractions_of_a_logical_gpu_are_shared(cluster: RayCluster):
    """Ray counts a GPU that is not there just as it counts one that is."""
    cluster.add("gpu", gpus=1)
    shared = {"labels": {"role": "gpu"}, "device": "cpu"}
    fleet = cluster.fleet()
    target = fleet.targets[0].model_dump() | shared | {"num_gpus": 0.6}
    drafter = fleet.drafters[0].model_dump() | shared | {"num_gpus": 0.4}
    fleet = cluster.fleet(targets=[target], drafters=[drafter])
    async with fleet_on(cluster, fleet) as actors:
        free = cluster.ray.available_resources()
        assert free.get("GPU", 0) == pytest.approx(0)
        from dragoman.fleet_client import FleetClient

        await at_rest(actors["heron/0"].facts["address"], drafters=1)
        async with FleetClient(actors["coordinator"].facts["address"]) as client:
            assert (await drafted_text_of(client)).data == await reference(cluster.models)
        await at_rest(actors["heron/0"].facts["address"], drafters=1)
        # A second target has no room left, and nothing is waited for.
        more = r"target=2 asks for 1 more x 0.6 GPU.* can never fit"
        with pytest.raises(DragomanError, match=more) as caught:
            await asyncio.to_thread(cluster.launcher.scale, fleet, {"target": 2}, drain_seconds=0)
        anew = (
            "lower num_gpus of heron in the fleet file to 0.3, start those anew that hold more (`dragoman fleet drain"
        )
        assert anew in caught.value.remedy
        more = r"drafters=2 asks for 1 more x 0.4 GPU .* 0 is free \(held by heron/0 0.6, edge/0 0.4\)"
        with pytest.raises(DragomanError, match=more) as caught:
            await asyncio.to_thread(cluster.launcher.scale, fleet, {"drafters": 2}, drain_seconds=0)
        assert "lower num_gpus of edge in the fleet file to 0.2, start those anew" in caught.value.remedy
        names = [one.name for one in await asyncio.to_thread(cluster.launcher.status)]
        assert names == ["coordinator", "heron/0", "edge/0"]


async def test_a_cluster_that_grows_is_waited_for_once_actors_ask_it_to(
    cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
):
    """Nodes of its groups come when actors wait for them, so that nothing is gained by waiting before that."""
    with monkeypatch.context() as patch:
        patch.setenv("RAY_NODE_TYPE_NAME", "workers")  # as autoscalers set it
        small = cluster.add("small", cpus=1)
    late = cluster.fleet().drafters[0].model_dump() | {"labels": {"role": "small"}, "num_cpus": 2}
    fleet = cluster.fleet(drafters=[late])
    cluster.lines.clear()
    coming = asyncio.create_task(asyncio.to_thread(cluster.launcher.up, fleet, wait_seconds=240))
    large = None
    try:
        async with asyncio.timeout(240):
            while not any("edge/0 is not there yet: its actor was not started yet" in line for line in cluster.lines):
                await asyncio.sleep(0.05)
        assert any("waiting for the cluster to add a node" in line for line in cluster.lines)
        large = cluster.add("small", cpus=2)
        assert {one.state for one in await coming} == {"serving"}
    finally:
        await asyncio.gather(coming, return_exceptions=True)
        await asyncio.to_thread(cluster.launcher.down)
        for node in (small, large):
            if node is not None:
                cluster.nodes.remove_node(node)


def test_device_cuda_without_one_says_so(cluster: RayCluster):
    target = cluster.fleet().targets[0].model_dump() | {"device": "cuda"}
    words = up(cluster, targets=[target], drafters=[])
    assert "device='cuda': cannot be used" in words


# ---- clusters -----------------------------------------------------------------------------------------------------


class FakeControl(grpc.GenericRpcHandler):
    """Ray's control service, of which only CheckAlive is there."""

    def __init__(self, version: str, token: str | None) -> None:
        self.version, self.token = version, token

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method != "/ray.rpc.NodeInfoGcsService/CheckAlive":
            return None
        given = dict(details.invocation_metadata or ()).get("authorization")

        def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
            if self.token is not None and given != f"Bearer {self.token}":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
            return b"\n\x00\x12" + bytes([len(self.version)]) + self.version.encode() + b"\x20\x01"

        return grpc.unary_unary_rpc_method_handler(answer)


@contextlib.contextmanager
def control(version: str = "2.60.0", token: str | None = None) -> Iterator[Address]:
    server = grpc.server(ThreadPoolExecutor(2), handlers=[FakeControl(version, token)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield Address("127.0.0.1", port)
    finally:
        server.stop(0).wait()


@pytest.fixture
def no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("DRAGOMAN_HOME", str(tmp_path))
    return monkeypatch


def test_the_right_token_is_found_where_ray_looks_for_it(no_token: pytest.MonkeyPatch, tmp_path: Path):
    with control(token="secret") as address:
        with pytest.raises(ConnectionFailedError, match="wants a token, and there is none here"):
            probe(address)
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("secret\n")
        assert probe(address).auth_mode == "token"
        no_token.setenv("RAY_AUTH_TOKEN", "wrong")
        with pytest.raises(ConnectionFailedError, match="refuses the token of RAY_AUTH_TOKEN"):
            probe(address)
        no_token.setenv("RAY_AUTH_MODE", "disabled")
        with pytest.raises(ConnectionFailedError, match="RAY_AUTH_MODE=disabled forbids"):
            probe(address)
        no_token.delenv("RAY_AUTH_MODE")
        no_token.delenv("RAY_AUTH_TOKEN")
        no_token.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "absent"))
        with pytest.raises(ConnectionFailedError, match="RAY_AUTH_TOKEN_PATH names"):
            probe(address)


def test_a_cluster_without_tokens_is_not_asked_for_one(no_token: pytest.MonkeyPatch):
    with control() as address:
        assert probe(address).auth_mode == "disabled" and probe(address).version == "2.60.0"


def test_another_version_of_ray(no_token: pytest.MonkeyPatch):
    with control("2.49.0") as address, pytest.raises(ConnectionFailedError) as caught:
        connect(address)
    assert "runs Ray 2.49.0, and here is" in caught.value.message and "ray[default]==2.49.0" in caught.value.remedy


async def test_something_else_listens(no_token: pytest.MonkeyPatch):
    async with coordinating() as (_, address):
        with pytest.raises(ConnectionFailedError, match=r"does not answer as Ray's control service does \(UNIMPL"):
            await asyncio.to_thread(probe, address)


def test_nothing_listens(no_token: pytest.MonkeyPatch):
    with pytest.raises(ConnectionFailedError, match="nothing listens at"):
        probe(Address("127.0.0.1", free_port()))


def test_ray_is_not_installed(no_token: pytest.MonkeyPatch, tmp_path: Path):
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    no_token.setattr(importlib.metadata, "version", version)
    path = tmp_path / "fleet.yaml"
    path.write_text("targets:\n  - name: a\n    model: m\n")
    with pytest.raises(DragomanError) as caught:
        run_up(path, "auto", wait_seconds=None, as_json=False)
    assert "Ray is not installed" in caught.value.message and "dragoman[ray]" in caught.value.remedy


def test_the_note_of_a_ray_that_is_gone_is_not_believed(no_token: pytest.MonkeyPatch, tmp_path: Path):
    assert find("auto") is None and find("local") is None
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{free_port()}")
    assert find("auto") is None
    with control() as address:
        (tmp_path / "ray" / "ray_current_cluster").write_text(str(address))
        assert find("auto") == address
        no_token.setenv("RAY_ADDRESS", "10.0.0.1:6379")
        assert find("auto") == Address("10.0.0.1", 6379)


BAD_INPUT = {
    "broken file": (2, ["up", "-c", "{dir}/broken.yaml"], "line 4: no such setting"),
    "broken gateway": (2, ["up", "-c", "{dir}/gateway.yaml"], "gateway.port=0"),
    "absent file": (2, ["up", "-c", "{dir}/absent.yaml"], "absent.yaml"),
    "no cluster": (4, ["status"], "no Ray runs on this machine"),
    "nothing there": (4, ["status", "--address=127.0.0.1:{free}"], "nothing listens at 127.0.0.1"),
    "client address": (2, ["down", "--address=ray://a:10001"], "is not the address of Ray's control service"),
    "no size": (2, ["scale", "drafters", "-c", "{dir}/good.yaml"], "size='drafters'"),
    "two sizes": (2, ["scale", "a=1", "a=2", "-c", "{dir}/good.yaml"], "size='a=2': comes after a=1"),
    "no duration": (2, ["up", "-c", "{dir}/good.yaml", "--wait=soon"], "wait='soon'"),
    "both": (2, ["up", "-c", "{dir}/good.yaml", "--wait=1s", "--no-wait"], "give one of the two"),
}


@pytest.mark.parametrize("code, arguments, words", BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_is_one_clear_line(no_token, tmp_path: Path, capsys, code: int, arguments: list[str], words: str):
    (tmp_path / "good.yaml").write_text("targets:\n  - name: a\n    model: m\n")
    (tmp_path / "broken.yaml").write_text("targets:\n  - name: a\n    model: m\n    colour: red\n")
    (tmp_path / "gateway.yaml").write_text("targets:\n  - name: a\n    model: m\ngateway:\n  port: 0\n")
    filled = [argument.format(dir=tmp_path, free=free_port()) for argument in arguments]
    with pytest.raises(SystemExit) as ended:
        main(["fleet", *filled])
    assert ended.value.code == code
    assert words in " ".join(capsys.readouterr().err.split())
