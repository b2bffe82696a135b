"""The manifests of deploy/kubernetes as kustomize renders them, and the containers in them."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.repository import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.parent.name for path in (KUBERNETES / "overlays").glob("*/kustomization.yaml"))
COMPONENTS = sorted(path.parent.name for path in (KUBERNETES / "components").glob("*/kustomization.yaml"))
_WITH_PODS = {"Deployment", "StatefulSet", "DaemonSet"}

#: An object of Kubernetes, as YAML has it.
Manifest = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """One of a workload's. ``where``: kind and name, for a test's message; ``template``: its metadata and spec."""

    where: str
    template: Manifest

    @property
    def spec(self) -> Manifest:
        """Of the pod."""
        return self.template["spec"]

    @property
    def labels(self) -> dict[str, str]:
        """Of the pod, as the workload writes them."""
        return self.template.get("metadata", {}).get("labels", {})

    @property
    def containers(self) -> list[Manifest]:
        """All of them, those that come first too."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def kubectl() -> str:
    """The system's. Skips the test where there is none."""
    found = shutil.which("kubectl")
    if found is None:
        pytest.skip("kubectl is not installed")
    return found


def kustomize(folder: Path) -> subprocess.CompletedProcess[str]:
    """`kubectl kustomize FOLDER`, whatever it says. Skips the test without kubectl."""
    return subprocess.run([kubectl(), "kustomize", str(folder)], capture_output=True, text=True, check=False)


@functools.cache
def rendered(folder: Path) -> list[Manifest]:
    """What `kubectl apply -k FOLDER` would apply. Skips the test without kubectl, fails it where it says why not."""
    done = kustomize(folder)
    assert done.returncode == 0, done.stderr
    return list(yaml.load_all(done.stdout, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def overlay(name: str) -> list[Manifest]:
    """The objects of an overlay."""
    return rendered(KUBERNETES / "overlays" / name)


def combine(folder: Path, name: str, components: Sequence[str], **others: Any) -> Path:
    """``folder``, with a kustomization of an overlay with components, and with other fields of it."""
    below = os.path.relpath(KUBERNETES, folder)
    written = {
        "resources": [f"{below}/overlays/{name}"],
        "components": [f"{below}/components/{component}" for component in components],
        **others,
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(written))
    return folder


def combined(folder: Path, name: str, components: Sequence[str]) -> list[Manifest]:
    """The objects of an overlay with components, as a kustomization in ``folder`` asks for them."""
    return rendered(combine(folder, name, components))


def pods(objects: Sequence[Manifest]) -> list[Pod]:
    """Of all workloads, those of Ray too."""
    return [Pod(where, template) for each in objects for where, template in _templates(each)]


def _templates(manifest: Manifest) -> Iterator[tuple[str, Manifest]]:
    kind, spec = manifest["kind"], manifest.get("spec", {})
    where = f"{kind} {manifest['metadata']['name']}"
    if kind in _WITH_PODS:
        yield where, spec["template"]
    if kind == "RayCluster":
        yield f"{where} head", spec["headGroupSpec"]["template"]
        for group in spec["workerGroupSpecs"]:
            yield f"{where} {group['groupName']}", group["template"]
    if kind == "RayJob":
        yield f"{where} submitter", spec["submitterPodTemplate"]


def of_kind(objects: Sequence[Manifest], kind: str) -> list[Manifest]:
    """Those of one kind."""
    return [each for each in objects if each["kind"] == kind]


def literals(objects: Sequence[Manifest], container: Manifest) -> dict[str, str]:
    """The variables that a container has, with those of its ConfigMaps; what the cluster fills in is ``{field}``."""
    maps = {each["metadata"]["name"]: each["data"] for each in of_kind(objects, "ConfigMap")}
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= maps[source["configMapRef"]["name"]]
    for variable in container.get("env", []):
        [field] = variable.get("valueFrom", {"": {}}).values()
        stand_in = "1" if "resource" in field else field.get("fieldPath", "")
        found[variable["name"]] = variable.get("value", stand_in)
    return found
