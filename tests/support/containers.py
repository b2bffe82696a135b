"""Podman, for tests: whether it can be used here, the images of deploy/containers, and what containers say."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.support.repository import ROOT
from transport.version import VERSION

#: Of the images that the overlays name.
REGISTRY = "registry.example/dragoman"
TARGETS = ("coordinator", "edge", "cpu")
_BASE = "localhost/dragoman-base:bookworm"
_DEBIAN = "http://deb.debian.org/debian"


def _missing() -> str | None:
    """Why no containers can be run here."""
    if os.getuid() != 0:
        return "containers are run as root"
    for program in ("podman", "kubectl", "ip"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if not any(shutil.which(runtime) for runtime in ("runc", "crun")):
        return "neither runc nor crun is installed"
    if not any(shutil.which(place) for place in ("catatonit", "/usr/libexec/podman/catatonit")):
        return "catatonit, which podman keeps a pod with, is not installed"
    if "DRAGOMAN_CONTAINER_BASE" not in os.environ and shutil.which("debootstrap") is None:
        return "DRAGOMAN_CONTAINER_BASE names no image of Debian 12, and debootstrap is not installed"
    return None


#: Images, names of pods and their network are those of the machine: one test at a time.
ALONE = FileLock(Path(tempfile.gettempdir()) / "dragoman-containers.lock")
#: None where containers can be run.
MISSING = _missing()


@functools.cache
def _environment() -> Mapping[str, str]:
    """That of the test, with settings that need no systemd and no rights beyond root's in a container."""
    runtime = "runc" if shutil.which("runc") else "crun"
    settings = (
        '[containers]\ndefault_ulimits = ["nofile=16384:16384", "nproc=16384:16384"]\nlog_driver = "k8s-file"\n'
        f'[engine]\nruntime = "{runtime}"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
    )
    file = Path(tempfile.mkdtemp(prefix="dragoman-containers-")) / "containers.conf"
    file.write_text(settings)
    return {**os.environ, "CONTAINERS_CONF": str(file)}


def podman(*arguments: str, stdin: str = "", check: bool = True) -> str:
    """What `podman ARGUMENTS` writes to standard output. Fails the test where it fails."""
    command = ["podman", *arguments]
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=False, env=_environment(), timeout=300
    )
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def inspected(kind: str, name: str) -> dict[str, Any]:
    """`podman KIND inspect NAME`."""
    found = json.loads(podman(kind, "inspect", name))
    return found[0] if isinstance(found, list) else found


def logs(container: str) -> str:
    """What it wrote, on both its outputs."""
    return _both("podman", "logs", container)


def _both(*command: str) -> str:
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, text=True, check=False, env=_environment(), timeout=300, **streams).stdout


def said_inside(container: str, code: str) -> str:
    """What Python says to code, on both its outputs, inside a container that runs."""
    return _both("podman", "exec", container, "/opt/dragoman/bin/python3", "-c", code)


def _base_image() -> str:
    """Debian 12: the one that is given, or made once from the packages of Debian."""
    if given := os.environ.get("DRAGOMAN_CONTAINER_BASE"):
        return given
    if _BASE in podman("images", "--format", "{{.Repository}}:{{.Tag}}").split():
        return _BASE
    with tempfile.TemporaryDirectory() as scratch:
        root = f"{scratch}/root"
        made = subprocess.run(
            ["debootstrap", "--variant=minbase", "bookworm", root, os.environ.get("DEBIAN_MIRROR", _DEBIAN)],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            pytest.skip(f"no base image: debootstrap says {made.stdout.strip().splitlines()[-1:]}")
        left_out = ("--exclude=./var/cache/apt/archives/*.deb", "--exclude=./dev/*")
        subprocess.run(["tar", "-C", root, *left_out, "-cf", f"{scratch}/root.tar", "."], check=True)
        podman("import", f"{scratch}/root.tar", _BASE)
    return _BASE


def _index(scratch: Path) -> dict[str, str]:
    """What `build.sh` takes for packages to come from where pip gets them here."""
    listed = subprocess.run(["pip", "config", "list"], capture_output=True, text=True, check=False).stdout
    settings = dict(line.split("=", 1) for line in listed.splitlines() if "=" in line)
    given = {name.rpartition(".")[2].strip(":"): value.strip("'\"") for name, value in settings.items()}
    wanted: dict[str, str] = {}
    lines = ["[global]"]
    for option in ("index-url", "extra-index-url"):
        if reachable := [url for url in given.get(option, "").split() if not url.startswith("file:")]:
            lines.append(f"{option} = {' '.join(reachable)}")
    if certificates := given.get("cert"):
        wanted["PIP_CA"] = certificates
        lines.append("cert = /run/secrets/ca.pem")
    for folder in given.get("find-links", "").split():
        if any(Path(folder).glob("torch-*+cpu-*.whl")):
            wanted["WHEELS"] = folder
    (scratch / "pip.conf").write_text("\n".join(lines) + "\n")
    return {**wanted, "PIP_CONF": str(scratch / "pip.conf")}


def image_of(target: str) -> str:
    """As the overlays name it."""
    return f"{REGISTRY}/{target}:{VERSION}"


def build(scratch: Path, targets: Sequence[str] = TARGETS) -> None:
    """The images that the overlays name, from these sources. Fails the test where they cannot be built."""
    with ALONE:
        given = {"BASE": _base_image(), "REPOSITORY": REGISTRY, **_index(scratch)}
        done = subprocess.run(
            [str(ROOT / "deploy" / "containers" / "build.sh"), *targets],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env={**_environment(), **given},
        )
    assert done.returncode == 0, done.stdout[-3000:]
