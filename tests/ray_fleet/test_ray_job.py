"""`ray job submit` as in the README: the code travels, weights do not; the job ends, the actors stay and come back."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from benchmarks.ports import free_port
from tests.support.commands import dragoman
from tests.support.ray_clusters import QUICK

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parent.parent.parent
#: Far more than Ray takes along, so that a job with it in its working directory cannot be submitted.
WEIGHTS_BYTES = 600 << 20


@pytest.fixture
def checkout(tiny_qwen2: Path, tiny_llama: Path, tmp_path: Path) -> Path:
    """What a person would stand in: the code, a fleet file, and weights beside them."""
    folder = tmp_path / "dragoman"
    packages = ("deploy", "dragoman", "coordinator", "gateway", "verifier_service", "drafter_service")
    for package in (*packages, "engine", "language_models", "speculation", "protos", "transport"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".rayignore", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    with (folder / "model.safetensors").open("wb") as weights:
        weights.truncate(WEIGHTS_BYTES)
    group = {"dtype": "float32", "threads": 1, "num_cpus": 0.5}
    fleet = {
        "coordinator": {"port": free_port()},
        "targets": [group | {"name": "heron", "model": str(tiny_qwen2)}],
        "drafters": [group | {"name": "edge", "model": str(tiny_llama)}],
    }
    (folder / "fleet.yaml").write_text(yaml.safe_dump(fleet))
    return folder


@contextlib.contextmanager
def head(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """`ray start --head` with its dashboard, and the environment to reach it."""
    # The packages of this environment, and no dragoman among what the workers find by themselves.
    around = os.environ | QUICK | {"HOME": str(folder), "RAY_TMPDIR": str(folder), "RAY_ADDRESS": ""}
    dashboard = free_port()
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=4"]
    ports = [f"--port={free_port()}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={free_port()}"]
    labels = ["--labels=role=edge", "--node-ip-address=127.0.0.1"]
    with (folder / "ray.log").open("w") as log:
        node = subprocess.Popen([*command, *ports, *labels], env=around, stdout=log, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{dashboard}"
        until = time.monotonic() + 90
        while True:
            assert node.poll() is None, (folder / "ray.log").read_text()
            try:
                with urllib.request.urlopen(f"{url}/api/version", timeout=5):
                    break
            except (urllib.error.URLError, OSError):
                assert time.monotonic() < until, (folder / "ray.log").read_text()
                time.sleep(0.5)
        yield url, around
    finally:
        family = []
        with contextlib.suppress(psutil.NoSuchProcess):
            family = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
        node.terminate()
        _, alive = psutil.wait_procs(family, timeout=15)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        node.wait()


def text_from(coordinator: str, patience: float = 0.0) -> str:
    """A text, asked for again for ``patience`` seconds as long as no verifier is registered."""
    asked = ["--prompt=The heron", "--max-tokens=24", "--temperature=0.8", "--resume-for=90s"]
    until = time.monotonic() + patience
    while True:
        written = dragoman("generate", f"--coordinator={coordinator}", *asked)
        if "no verifier is registered" not in written.stderr or time.monotonic() > until:
            break
        time.sleep(1)
    assert written.returncode == 0 and written.stdout.strip(), written.stderr
    return written.stdout


def test_a_job_brings_the_fleet_up_and_is_not_needed_any_more(checkout: Path, ray_folder: Path):
    pytest.importorskip("ray")
    folder = ray_folder
    with head(folder) as (url, around):
        submit = ["job", "submit", f"--address={url}", "--working-dir=.", "--"]
        entry = [sys.executable, "-m", "deploy.fleet", "up", "-c", "fleet.yaml"]
        job = subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", *submit, *entry],
            cwd=checkout, env=around, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        said = job.stdout + job.stderr
        assert job.returncode == 0 and "succeeded" in said, said
        [coordinator] = re.findall(r"coordinator serves at (\S+)", said)
        assert not list(folder.rglob("model.safetensors")), "weights stay where they are"
        first = text_from(coordinator)
        # The one that asked for the actors is gone. Ray starts a killed one again all the same, with the code it had.
        [verifier] = [p for p in psutil.process_iter(["cmdline"]) if _is_actor(p, "VerifierActor", folder)]
        verifier.kill()
        verifier.wait(20)
        assert text_from(coordinator, patience=240) == first


def _is_actor(process: psutil.Process, kind: str, folder: Path) -> bool:
    """Ray names the processes of actors; its files are in ``folder``."""
    words = process.info["cmdline"] or []
    if not words or f"ray::{kind}" not in words[0]:
        return False
    with contextlib.suppress(psutil.Error):
        return str(folder) in process.environ().get("RAY_TMPDIR", "")
    return False
