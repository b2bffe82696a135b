"""`dragoman fleet` where there is no cluster: a Ray of one's own, with a token, from nothing and back to nothing."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from benchmarks.ports import free_port
from tests.support.commands import dragoman
from transport.address import Address
from transport.servers import check_bindable

pytestmark = pytest.mark.ray
NAMES = ["coordinator", "heron/0", "edge/0", "gateway/0"]


def processes_of(folder: Path) -> list[int]:
    """Those that were started with this folder for Ray's files."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in word for word in process.info["cmdline"] or ())
    ]


def listening(home: Path) -> list[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int, str]]:
    """Address, port and program of every socket at which the local Ray and all that runs in it listen."""
    found = []
    for noted in json.loads((home / "ray.json").read_text())["processes"]:
        node = psutil.Process(noted["pid"])
        for process in (node, *node.children(recursive=True)):
            for each in process.net_connections("inet"):
                if each.status == psutil.CONN_LISTEN:
                    address = ipaddress.ip_address(each.laddr.ip)
                    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
                    found.append((mapped or address, each.laddr.port, " ".join(process.cmdline())[:200]))
    return found


def struck(number: signal.Signals, arguments: list[str], when: str, around: dict[str, str]) -> tuple[int, str]:
    """The command's exit code and error output, if it gets the signal once it says ``when``."""
    command = [sys.executable, "-m", "dragoman", *arguments]
    said = []
    with subprocess.Popen(
        command,
        env=os.environ | around,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background has SIGINT ignored, and so would the command.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if when in line and process.poll() is None:
                process.send_signal(number)
                when = "nothing more"
    return process.returncode, "".join(said)


@dataclass
class Local:
    """A Ray that `fleet up` started, with tiny models on it. ``up``: what it printed; ``folder``: of all its files."""

    folder: Path
    file: dict[str, Any]
    around: dict[str, str]
    up: dict[str, Any]

    @property
    def path(self) -> str:
        return str(self.folder / "fleet.yaml")

    @property
    def coordinator(self) -> str:
        return next(str(actor["address"]) for actor in self.up["actors"] if actor["name"] == "coordinator")

    @property
    def url(self) -> str:
        """Of the gateway."""
        return next(str(actor["url"]) for actor in self.up["actors"] if actor["name"] == "gateway/0")

    def fleet(self, *arguments: str, **around: str) -> subprocess.CompletedProcess[str]:
        return dragoman("fleet", *arguments, **self.around | around)

    def status(self, *arguments: str) -> str:
        """What `fleet status` prints once every actor answers: on a busy machine some do not within its seconds."""
        for _ in range(6):
            found = self.fleet("status", *arguments)
            assert found.returncode == 0, found.stderr
            if "silent" not in found.stdout:
                break
        return found.stdout

    def actors(self) -> list[str]:
        return [actor["name"] for actor in json.loads(self.status("--json"))["actors"]]

    def changed(self, **target_or_drafter: dict[str, Any]) -> str:
        """Another fleet file, with other settings of a group."""
        file = {**self.file, **{kind: [self.file[kind][0] | new] for kind, new in target_or_drafter.items()}}
        path = self.folder / "changed.yaml"
        path.write_text(yaml.safe_dump(file))
        return str(path)


@pytest.fixture(scope="module")
def local(tiny_qwen2: Path, tiny_llama: Path, ray_folder: Path) -> Iterator[Local]:
    pytest.importorskip("ray")
    folder = ray_folder
    group = {"dtype": "float32", "threads": 1}
    file = {
        "coordinator": {"port": free_port()},
        # With the drafters at role=edge that makes two nodes.
        "targets": [group | {"name": "heron", "model": str(tiny_qwen2), "labels": {"role": "accelerator"}}],
        "drafters": [group | {"name": "edge", "model": str(tiny_llama), "num_cpus": 0.5}],
        "gateway": {"port": free_port()},
    }
    around = {
        "HOME": str(folder),
        "DRAGOMAN_HOME": str(folder / "home"),
        "RAY_TMPDIR": str(folder),
        "RAY_ADDRESS": "",
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "200",
    }
    made = Local(folder, file, around, {})
    Path(made.path).write_text(yaml.safe_dump(file))
    try:
        up = made.fleet("up", "-c", made.path, "--json")
        assert up.returncode == 0, up.stderr
        assert "starting one" in up.stderr
        made.up = json.loads(up.stdout)
        yield made
    finally:
        made.fleet("down")


def test_up_text_and_status(local: Local):
    actors = {actor["name"]: actor for actor in local.up["actors"]}
    assert {actor["state"] for actor in actors.values()} == {"serving"} and len(actors) == 4
    written = ["--prompt=The heron", "--max-tokens=8"]
    text = dragoman("generate", f"--coordinator={local.coordinator}", *written, **local.around)
    assert text.returncode == 0 and text.stdout.strip(), text.stderr
    asked = {"prompt": "The heron", "max_tokens": 8}
    response = httpx.post(f"{local.url}/v1/completions", json=asked, trust_env=False, timeout=240)
    assert response.status_code == 200 and response.json()["usage"]["completion_tokens"] == 8, response.text
    assert "Dragoman" in httpx.get(local.url, trust_env=False, timeout=240).text, "the page came along"
    told = json.loads(local.status("--json"))
    assert [actor["name"] for actor in told["actors"]] == NAMES
    assert len(told["fleet"]["verifiers"]) == len(told["fleet"]["drafters"]) == 1 and not told["problem"]


def test_all_of_it_listens_on_loopback_only(local: Local):
    """What the servers of the fleet send is not encrypted, and at those of Ray any code may be run."""
    sockets = listening(local.folder / "home")
    assert [one for one in sockets if not one[0].is_loopback] == []
    ports = {port for _, port, _ in sockets}
    assert {int(address.split(":")[-1]) for address in (local.up["ray"], local.coordinator, local.url)} <= ports
    programs = " ".join(program for _, _, program in sockets)
    assert programs.count("raylet/raylet") >= 2 and "ray::DashboardAgent" in programs, programs


def test_scale_and_drain(local: Local):
    more = local.fleet("scale", "drafters=2", "-c", local.path)
    assert more.returncode == 0 and "edge/1" in more.stdout, more.stderr
    fewer = local.fleet("drain", "edge/1")
    assert fewer.returncode == 0 and "edge/1 is gone" in fewer.stderr, fewer.stderr


def test_what_has_no_room_is_refused_with_what_would_do(local: Local):
    """And an edited num_cpus is told of those that keep the old one."""
    path = local.changed(drafters={"num_cpus": 0.7})
    refused = local.fleet("scale", "drafters=9", "-c", path)
    assert refused.returncode == 1 and "drafters=9 asks for 8 more x 0.7 CPU" in refused.stderr, refused.stderr
    assert "lower num_cpus of edge in the fleet file to 0." in refused.stderr
    assert "`dragoman fleet down`, then `up`, starts a Ray with room" in refused.stderr
    told = "edge/0 as started before: num_cpus 0.5 (the file has 0.7); to apply the file:"
    shown = local.status("-c", path)
    assert told in refused.stderr and told in shown
    assert re.search(rf"gateway/0 +gateway +serving +{re.escape(local.url)}\b", shown), shown


def test_one_that_is_stopped_half_way_clears_up_and_dumps_nothing(local: Local):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        path = local.changed(targets={"port": taken.getsockname()[1] - 1})
        arguments = ["fleet", "scale", "target=2", "-c", path]
        ended, said = struck(signal.SIGTERM, arguments, "heron/1 is not there yet", local.around)
    assert ended == 143 and "heron/1 is removed again: it does not serve" in said, said
    assert not any(word in said for word in ("***", "Traceback", "received at time")), said
    assert local.actors() == NAMES


def test_strangers_on_this_machine_do_not_get_in_and_are_told_why(local: Local):
    at, stranger = f"--address={local.up['ray']}", {"DRAGOMAN_HOME": str(local.folder / "other")}
    refused = local.fleet("status", at, **stranger)
    assert refused.returncode == 4 and "wants a token, and there is none here" in refused.stderr, refused.stderr
    refused = local.fleet("status", at, **stranger, RAY_AUTH_TOKEN="0" * 64)
    assert refused.returncode == 4 and "refuses the token of RAY_AUTH_TOKEN" in refused.stderr, refused.stderr
    # Whoever has the token does, though the address is one that Ray takes for a mistake.
    admitted = local.fleet("status", at, **stranger, RAY_AUTH_TOKEN_PATH=str(local.folder / "home" / "ray-token"))
    assert admitted.returncode == 0 and "heron/0" in admitted.stdout, admitted.stderr
    assert not (local.folder / ".ray").exists()


def test_down_leaves_nothing_behind(local: Local):
    down = local.fleet("down")
    assert down.returncode == 0 and "the local Ray is gone" in down.stderr, down.stderr
    assert processes_of(local.folder) == []
    check_bindable(Address("127.0.0.1", local.file["gateway"]["port"]))
    again = local.fleet("down")
    assert again.returncode == 0 and "no Ray runs here" in again.stderr
