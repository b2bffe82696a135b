"""The overlay `plain` in containers: images built from these sources, pods as the manifests have them, and what happens
to texts when these come and go. The test stands in for a cluster (``tests/support/pods.py``)."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dragoman.coordinator_client import CoordinatorClient
from speculation.errors import ConnectionFailedError
from tests.support.containers import MISSING, REGISTRY, TARGETS, image_of, inspected, podman, said_inside
from tests.support.pods import PLACES, Pods, address_of, fleet_of, with_models
from transport.security import Security

pytestmark = [
    pytest.mark.containers,
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.timeout(3600),  # images are built
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]

PLAINTEXT = Security(allow_plaintext=True)
VERIFIERS, DRAFTERS = ("verifier-0", "verifier-1"), ("drafter-0", "drafter-1")
SEEDS = range(8)
#: Texts by seed, written one after the other while nothing happened.
QUIET: dict[int, str] = {}
STORY: dict[str, Any] = {"prompt": "The heron", "max_tokens": 400, "temperature": 0.8, "ignore_eos": True}


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory, container_images: None, container_models: Path) -> Iterator[Pods]:
    """The fleet, ready: one of each pod, but for a second gateway."""
    objects = with_models(tmp_path_factory.mktemp("overlay"), container_models)
    with fleet_of(Pods(objects), [pod for pod in PLACES if pod != "gateway-1"]) as made:
        yield made


class Front:
    """A client of the Service `gateway`: of the pods that are its endpoints."""

    def __init__(self) -> None:
        self.endpoints = ["gateway-0"]
        self._http = httpx.AsyncClient(timeout=120, trust_env=False)
        self._model = ""

    async def start(self) -> None:
        """Learn the model's name, and what texts are on a quiet day."""
        listed = await self._http.get(f"{self._url()}/v1/models")
        self._model = listed.json()["data"][0]["id"]
        for seed in SEEDS:
            if seed not in QUIET:
                QUIET[seed] = await self.text(seed)

    def _url(self) -> str:
        return f"http://{address_of(self.endpoints[0])}:8000"

    async def text(self, seed: int, begun: Callable[[], None] = lambda: None) -> str:
        """Streamed. ``begun`` is called at its first words."""
        body = {**STORY, "model": self._model, "seed": seed, "stream": True}
        words: list[str] = []
        async with self._http.stream("POST", f"{self._url()}/v1/completions", json=body) as answer:
            assert answer.status_code == 200, await answer.aread()
            async for line in answer.aiter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                event = json.loads(line.removeprefix("data: "))
                assert "error" not in event, event
                words.append(event["choices"][0]["text"])
                begun()
        assert line == "" or line == "data: [DONE]", "it came to its end"
        return "".join(words)

    async def texts_with(self, happening: Callable[[], Awaitable[None]]) -> None:
        """All seeds' texts at once, in whose middle something happens; they are those of a quiet day."""
        begun = asyncio.Event()
        writing = [asyncio.create_task(self.text(seed, begun.set)) for seed in SEEDS]
        await asyncio.wait_for(begun.wait(), 120)
        await happening()
        assert await asyncio.gather(*writing) == [QUIET[seed] for seed in SEEDS]

    async def close(self) -> None:
        """Of its connections."""
        await self._http.aclose()


@pytest.fixture
async def front(pods: Pods):
    made = Front()
    try:
        await made.start()
        yield made
    finally:
        await made.close()


async def members() -> dict[str, Any]:
    """By the names of their pods, as the coordinator tells them; nothing while there is none."""
    try:
        async with CoordinatorClient(f"{address_of('coordinator')}:50060", security=PLAINTEXT) as asking:
            return {member.name: member for member in (await asking.status()).members}
    except ConnectionFailedError:
        return {}


async def complete() -> None:
    """Until the fleet has all its members, and both drafters are there for both verifiers."""
    async with asyncio.timeout(240):
        while True:
            found = await members()
            if set(found) == {*VERIFIERS, *DRAFTERS} and all(
                len(found[it].drafter.attached_to) == 2 for it in DRAFTERS
            ):
                return
            await asyncio.sleep(0.2)


async def busiest() -> str:
    """The verifier with most sessions."""
    counts = {}
    async with httpx.AsyncClient(timeout=60, trust_env=False) as asking:
        for pod in VERIFIERS:
            page = (await asking.get(f"http://{address_of(pod)}:9100/metrics")).text
            [count] = re.findall(r"^vllm:num_requests_running\{.*\} (\S+)$", page, re.MULTILINE)
            counts[pod] = float(count)
    assert any(counts.values()), "the texts have not ended"
    return max(counts, key=lambda pod: counts[pod])


async def test_text_comes_through_the_gateway_with_the_drafters_help(pods: Pods, front: Front):
    await complete()
    texts = list(QUIET.values())
    assert len(set(texts)) == len(texts) == len(SEEDS) and min(map(len, texts)) > 400
    assert await front.text(SEEDS[0]) == texts[0]
    async with asyncio.timeout(60):  # reports come every now and then
        while not accepted(await members()):
            await asyncio.sleep(0.2)


def accepted(found: dict[str, Any]) -> int:
    """Draft tokens of all drafters."""
    return sum(found[drafter].drafter.accepted_tokens for drafter in DRAFTERS)


def test_root_is_read_only_and_nobody_is_root(pods: Pods):
    attempt = "open({!r}, 'w').write('x')"
    for pod in pods.running:
        container = pods.container(pod)
        found = inspected("container", container)
        assert found["HostConfig"]["ReadonlyRootfs"] and not found["EffectiveCaps"], pod
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{found['State']['Pid']}/status").read_text().splitlines()
        )
        assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"10001"}, pod
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0 and status["NoNewPrivs"] == "1", pod
        for path in ("/x", "/opt/dragoman/x", "/var/x", "/models/x"):
            said = refused(container, attempt.format(path))
            assert "Read-only" in said or "Permission denied" in said or "No such file" in said, (pod, path, said)
        assert refused(container, "import os; os.execv('/bin/sh', ['sh'])").endswith("No such file or directory"), pod


def refused(container: str, code: str) -> str:
    """The last line of what Python in a container says."""
    return said_inside(container, code).strip().splitlines()[-1]


async def test_a_verifier_killed_in_mid_text_changes_no_byte(pods: Pods, front: Front):
    await complete()

    async def kill() -> None:
        pod = await busiest()
        pods.kill(pod)
        pods.start(pod)

    await front.texts_with(kill)
    await pods.ready(*VERIFIERS)


async def test_a_verifier_stopped_in_mid_text_lets_its_texts_end(pods: Pods, front: Front):
    await complete()
    codes = []

    async def stop() -> None:
        pod = await busiest()
        codes.append(await pods.stop(pod))
        pods.start(pod)

    await front.texts_with(stop)
    assert codes == [0], "it ended by itself, in its time"
    await pods.ready(*VERIFIERS)


async def test_a_rolling_update_under_load_loses_no_text(pods: Pods, front: Front):
    await complete()
    done, rolled = [], asyncio.Event()

    async def load(seed: int) -> None:
        while not rolled.is_set():
            done.append((seed, await front.text(seed)))

    async def roll(pod: str) -> None:
        assert await pods.stop(pod) == 0, pod
        pods.start(pod)
        await pods.ready(pod)

    writing = [asyncio.create_task(load(seed)) for seed in SEEDS]
    tag_images("next")
    pods.tag = "next"
    for pod in (*reversed(VERIFIERS), *DRAFTERS, "coordinator"):
        await roll(pod)
        await complete()
    await replace_gateway(pods, front)
    rolled.set()
    await asyncio.gather(*writing)
    assert all(text == QUIET[seed] for seed, text in done), "no byte differs"
    assert len(done) >= 2 * len(SEEDS)
    images = {inspected("container", pods.container(pod))["ImageName"].rpartition(":")[2] for pod in pods.running}
    assert images == {"next"}


def tag_images(tag: str) -> None:
    """The same images as another release."""
    for target in TARGETS:
        podman("tag", image_of(target), f"{REGISTRY}/{target}:{tag}")


async def replace_gateway(pods: Pods, front: Front) -> None:
    """maxSurge 1: the new one is an endpoint, and then the old one none, before that is stopped."""
    pods.start("gateway-1")
    await pods.ready("gateway-1")
    front.endpoints = ["gateway-1"]
    await asyncio.sleep(1.0)
    assert await pods.stop("gateway-0") == 0


async def test_a_pod_is_stopped_while_it_loads(pods: Pods):
    """The first process of a container hears no signal that it has no handler for."""
    await pods.stop("drafter-1")
    pods.start("drafter-1")
    async with asyncio.timeout(60):
        while "dragoman" not in podman("pod", "top", "drafter-1", "args"):
            await asyncio.sleep(0.1)
    await asyncio.sleep(3)
    code = await pods.stop("drafter-1")
    assert code in (0, 143), "137 would be SIGKILL"
