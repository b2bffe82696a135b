"""The images of deploy/containers: what their Containerfile and locks say, and, where they can be built, what is in
them."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib

import pytest

from tests.support.containers import MISSING, TARGETS, image_of, inspected, podman
from tests.support.manifests import OVERLAYS, overlay, pods
from tests.support.repository import ROOT

FOLDER = ROOT / "deploy" / "containers"
CONTAINERFILE = (FOLDER / "Containerfile").read_text()
LOCKS = ("build", "coordinator", "cpu", "cuda", "edge", "ray")
#: Where programs are, and what only a build has.
FOLDERS = ("/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin")
OF_BUILDING = ("/etc/pip.conf", "/run/secrets/ca.pem", "/wheels", "/wheel", "/source", "/scripts", "/locks")
IN_CONTAINERS = [
    pytest.mark.containers,
    pytest.mark.slow,
    pytest.mark.timeout(3600),  # images are built
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]


def pins(text: str) -> dict[str, str]:
    """Versions by normalised names."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s\\;]+)", text, re.MULTILINE)
    return {re.sub(r"[._-]+", "-", name).lower(): version for name, version in found}


def named(requirements: list[str]) -> set[str]:
    """Packages of requirements, without versions."""
    return {re.sub(r"[._-]+", "-", re.split(r"[<>=\[\s]", each)[0]).lower() for each in requirements}


def lock(name: str) -> str:
    """The text of one."""
    return (FOLDER / "locks" / f"{name}.txt").read_text()


def test_every_image_of_the_manifests_can_be_built():
    targets = set(re.findall(r"^FROM \S+ AS (\w+)$", CONTAINERFILE, re.MULTILINE))
    wanted = {
        container["image"].rpartition("/")[2].partition(":")[0]
        for name in OVERLAYS
        for pod in pods(overlay(name))
        for container in pod.containers
    }
    assert wanted == {"coordinator", "edge", "cpu", "ray", "cuda"} and wanted <= targets
    titles = set(re.findall(r'image\.title="dragoman-(\w+)"', CONTAINERFILE))
    assert titles == wanted


def test_images_and_manifests_agree_on_user_and_volume():
    users = set(re.findall(r"^USER (\S+)$", CONTAINERFILE, re.MULTILINE))
    [home] = set(re.findall(r"DRAGOMAN_HOME=(\S+)", CONTAINERFILE))
    assert set(re.findall(r"^VOLUME (\S+)$", CONTAINERFILE, re.MULTILINE)) == {home}
    for pod in [pod for name in OVERLAYS for pod in pods(overlay(name))]:
        context = pod.spec["securityContext"]
        assert {f"{context['runAsUser']}:{context['runAsGroup']}"} == users, pod.where
        for container in pod.containers:
            variables = {each["name"]: each.get("value") for each in container.get("env", ())}
            assert variables.get("DRAGOMAN_HOME", home) == home, pod.where


@pytest.mark.parametrize("name", LOCKS)
def test_locks_hold_each_package_by_its_hash_in_the_version_that_is_tested(name: str):
    tested = pins((ROOT / "constraints.txt").read_text())
    locked = pins(lock(name))
    assert len(locked) > 20
    for package, version in locked.items():
        assert tested.get(package, version) == version.removesuffix("+cpu"), package
    entries = re.split(r"^(?=[A-Za-z0-9])", lock(name), flags=re.MULTILINE)[1:]
    assert len(entries) == len(locked) and all("--hash=sha256:" in entry for entry in entries)


def test_locks_have_what_each_image_is_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: named(project["optional-dependencies"][name]) for name in ("guided", "ray", "gpu")}
    edge, cpu, ray, cuda, coordinator = (
        set(pins(lock(name))) for name in ("edge", "cpu", "ray", "cuda", "coordinator")
    )
    assert named(project["dependencies"]) <= edge < cpu < ray and extras["guided"] <= cpu and extras["ray"] <= ray
    assert named(project["dependencies"]) | extras["guided"] | extras["ray"] | extras["gpu"] <= cuda
    assert not {"ray", "triton"} & cpu and not [package for package in edge if package.startswith("nvidia")]
    given = (FOLDER / "locks" / "coordinator.in").read_text().splitlines()
    assert named([line for line in given if not line.startswith("#")]) <= named(project["dependencies"]) & coordinator
    assert not {"torch", "numpy", "transformers", "tokenizers", "ray"} & coordinator


def test_the_scripts_are_shell():
    for script in (FOLDER / "build.sh", FOLDER / "lock.sh", *sorted((FOLDER / "scripts").glob("*.sh"))):
        shell = "bash" if script.parent == FOLDER else "sh"
        assert subprocess.run([shell, "-n", str(script)], check=False).returncode == 0, script.name


class TestBuilt:
    """What is in them."""

    pytestmark = IN_CONTAINERS

    @pytest.mark.parametrize("target", TARGETS)
    def test_it_says_what_it_is(self, container_images: None, target: str):
        found = inspected("image", image_of(target))
        labels, config = found["Labels"], found["Config"]
        assert labels["org.opencontainers.image.title"] == f"dragoman-{target}"
        assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
        assert len(labels["org.opencontainers.image.revision"]) == 40
        assert config["User"] == "10001:10001" and config["Entrypoint"] == ["dragoman"]
        assert podman("run", "--rm", "--read-only", "--network", "none", image_of(target), "--version").startswith(
            "dragoman"
        )

    def test_the_coordinators_is_small(self, container_images: None):
        assert inspected("image", image_of("coordinator"))["Size"] < 250e6

    @pytest.mark.parametrize("target", TARGETS)
    def test_its_list_of_packages_is_that_of_its_lock(self, container_images: None, target: str):
        read = "print(open('/usr/share/sbom/dragoman.cdx.json').read())"
        listed = json.loads(self.python(target, read))
        assert listed["bomFormat"] == "CycloneDX"
        named = {re.sub(r"[._-]+", "-", each["name"]).lower(): each["version"] for each in listed["components"]}
        assert named.pop("dragoman") == image_of(target).rpartition(":")[2]
        assert named == pins(lock(target))

    @pytest.mark.parametrize("target", TARGETS)
    def test_there_is_python_and_no_other_program(self, container_images: None, target: str):
        code = f"import os; print(*(f for d in {FOLDERS} if os.path.isdir(d) for f in os.listdir(d)))"
        assert self.python(target, code).split() == ["python3.11"]

    @pytest.mark.parametrize("target", TARGETS)
    def test_nothing_of_the_machine_that_built_it_is_in_it(self, container_images: None, target: str):
        code = f"import os; print(*filter(os.path.exists, {OF_BUILDING}))"
        assert self.python(target, code).split() == []

    @staticmethod
    def python(target: str, code: str) -> str:
        """What Python says in a container."""
        options = ("--rm", "--read-only", "--network", "none", "--entrypoint", "/opt/dragoman/bin/python3")
        return podman("run", *options, image_of(target), "-c", code)
