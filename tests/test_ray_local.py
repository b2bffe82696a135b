"""`dragoman fleet` where there is no cluster: a Ray of one's own, with a token, from nothing and back to nothing."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest
import yaml

from tests.test_cli import dragoman
from tests.test_fleet_cli import free_port

pytestmark = pytest.mark.ray


def processes_of(folder: Path) -> list[int]:
    """Those that were started with this folder for Ray's files."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in word for word in process.info["cmdline"] or ())
    ]


def test_up_text_status_down(tiny_qwen2: Path, tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory):
    pytest.importorskip("ray")
    # Paths of sockets may have 107 bytes.
    folder = Path(tmp_path_factory.mktemp("r", numbered=True))
    group = {"dtype": "float32", "threads": 1}
    fleet = {
        "coordinator": {"port": free_port()},
        "targets": [group | {"name": "heron", "model": str(tiny_qwen2)}],
        "drafters": [group | {"name": "edge", "model": str(tiny_llama), "num_cpus": 0.5}],
    }
    path = folder / "fleet.yaml"
    path.write_text(yaml.safe_dump(fleet))
    around = {
        "HOME": str(folder),
        "DRAGOMAN_HOME": str(folder / "home"),
        "RAY_TMPDIR": str(folder),
        "RAY_ADDRESS": "",
        "HF_HUB_OFFLINE": "1",
    }
    try:
        up = dragoman("fleet", "up", "-c", str(path), "--json", **around)
        assert up.returncode == 0, up.stderr
        assert "starting one" in up.stderr
        actors = {actor["name"]: actor for actor in json.loads(up.stdout)["actors"]}
        assert {actor["state"] for actor in actors.values()} == {"serving"} and len(actors) == 3
        coordinator = actors["coordinator"]["address"]
        assert coordinator.startswith("127.0.0.1:"), "what is not encrypted stays on this machine"

        text = dragoman("generate", f"--coordinator={coordinator}", "--prompt=The heron", "--max-tokens=8", **around)
        assert text.returncode == 0 and text.stdout.strip(), text.stderr

        found = dragoman("fleet", "status", "--json", **around)
        assert found.returncode == 0, found.stderr
        told = json.loads(found.stdout)
        assert [actor["name"] for actor in told["actors"]] == ["coordinator", "heron/0", "edge/0"]
        assert len(told["fleet"]["verifiers"]) == len(told["fleet"]["drafters"]) == 1 and not told["problem"]

        more = dragoman("fleet", "scale", "drafters=2", "-c", str(path), **around)
        assert more.returncode == 0 and "edge/1" in more.stdout, more.stderr
        fewer = dragoman("fleet", "drain", "edge/1", **around)
        assert fewer.returncode == 0 and "edge/1 is gone" in fewer.stderr, fewer.stderr

        # Strangers on this machine do not get in, and are told why.
        stranger = around | {"DRAGOMAN_HOME": str(folder / "other")}
        address = json.loads(up.stdout)["ray"]
        refused = dragoman("fleet", "status", f"--address={address}", **stranger)
        assert refused.returncode == 4 and "wants a token, and there is none here" in refused.stderr, refused.stderr
        refused = dragoman("fleet", "status", f"--address={address}", **stranger, RAY_AUTH_TOKEN="0" * 64)
        assert refused.returncode == 4 and "refuses the token of RAY_AUTH_TOKEN" in refused.stderr, refused.stderr
        assert not (folder / ".ray").exists()
    finally:
        down = dragoman("fleet", "down", **around)
    assert down.returncode == 0 and "the local Ray is gone" in down.stderr, down.stderr
    assert processes_of(folder) == []
    again = dragoman("fleet", "down", **around)
    assert again.returncode == 0 and "no Ray runs here" in again.stderr
