"""The image for Ray: a head runs in it with a root that cannot be written, as nobody, and a fleet on that."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dragoman import SyncDragoman
from tests.support.containers import MISSING, build, image_of, inspected, logs, podman

pytestmark = [pytest.mark.containers, pytest.mark.skipif(MISSING is not None, reason=MISSING or "")]

NAME = "dragoman-test-ray"
PROMPT = "The heron"
FLEET = """
targets:
  - { name: heron, model: /models/target, dtype: float32, num_cpus: 0.2, labels: {} }
drafters:
  - { name: edge, model: /models/drafter, num_cpus: 0.2, labels: {} }
"""
#: What `overlays/kuberay` gives its pods to write to, and of rights. Without a network: loopback is all of it.
OPTIONS = [
    *("--read-only", "--network=none", "--shm-size=1g", "--cap-drop=all", "--security-opt=no-new-privileges"),
    *("--tmpfs=/tmp:rw,size=2g,mode=1777", "--tmpfs=/var/cache/dragoman:rw,size=1g,mode=1777"),
]
HEAD = ["start", "--head", "--block", "--num-cpus=2", "--node-ip-address=127.0.0.1", "--disable-usage-stats"]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory, container_models: Path) -> Iterator[str]:
    """A container in which Ray's head runs."""
    build(tmp_path_factory.mktemp("build"), ["ray"])
    (container_models / "fleet.yaml").write_text(FLEET)
    volume = f"{container_models}:/models:ro"
    podman("rm", "--force", NAME, check=False)
    podman("run", "--detach", f"--name={NAME}", *OPTIONS, "-v", volume, "--entrypoint=ray", image_of("ray"), *HEAD)
    try:
        deadline = time.monotonic() + 240
        while "Total Usage" not in inside("ray", "status", check=False):
            assert inspected("container", NAME)["State"]["Running"] and time.monotonic() < deadline, logs(NAME)
            time.sleep(2)
        yield NAME
    finally:
        podman("rm", "--force", NAME)


def inside(*command: str, check: bool = True) -> str:
    """What a command says in the container."""
    return podman("exec", NAME, *command, check=check)


def test_a_fleet_runs_and_ends_in_it(head: str, container_models: Path):
    assert "uid=10001" in inside("id")
    assert "Read-only" in inside("sh", "-c", "touch /x 2>&1 || true")
    up = inside("dragoman", "fleet", "up", "-c", "/models/fleet.yaml", "--address=127.0.0.1:6379")
    kinds = ("coordinator", "verifier", "drafter")
    assert all(f"{kind:11} serving" in up for kind in kinds), up
    asked = ["--coordinator=127.0.0.1:50060", f"--prompt={PROMPT}", "--max-tokens=12", "--json"]
    written = json.loads(inside("dragoman", "generate", *asked))
    with SyncDragoman(target=str(container_models / "target"), dtype="float32", device="cpu") as alone:
        assert written["text"] == alone.complete(PROMPT, max_tokens=12).text
    assert written["usage"]["completion_tokens"] == 12
    inside("dragoman", "fleet", "down")
    assert "No actor of a fleet runs" in inside("dragoman", "fleet", "status")
