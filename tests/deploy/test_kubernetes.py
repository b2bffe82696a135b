"""Every overlay and component of deploy/kubernetes renders, and is what the API server and KubeRay take."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.support.manifests import COMPONENTS, OVERLAYS, Manifest, combined, of_kind, overlay, pods

#: The three minor versions that Kubernetes supports.
VERSIONS = ("1.35", "1.36", "1.37")
#: Of others than Kubernetes: no schemas come with it.
CUSTOM = ("ray.io/", "cert-manager.io/", "monitoring.coreos.com/", "keda.sh/", "gateway.networking.k8s.io/")
#: A folder with ray.io_rayclusters.yaml and ray.io_rayjobs.yaml, as KubeRay's Helm chart has them.
CRDS = os.environ.get("DRAGOMAN_KUBERAY_CRDS")


def validate(manifest: Manifest, version: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="it is of the extra dev")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", OVERLAYS)
def test_overlays_are_valid(name: str, version: str):
    objects = overlay(name)
    assert objects
    for manifest in objects:
        if not manifest["apiVersion"].startswith(CUSTOM):
            validate(manifest, version)
    for pod in pods(objects):  # those of Ray are in no schema of Kubernetes
        wrapped = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod.spec}
        validate(wrapped, version)


def test_what_is_misspelt_is_noticed():
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}
    container = {"name": "x", "image": "x", "resources": {"limit": {"cpu": "1"}}}
    with pytest.raises(Exception, match="limit"):
        validate({**manifest, "spec": {"containers": [container]}}, VERSIONS[-1])


@pytest.mark.parametrize("component", COMPONENTS)
def test_each_component_goes_with_an_overlay_by_itself(component: str, tmp_path: Path):
    below = "kuberay" if component.startswith("ray-") else "plain"
    # Its load balancers are for mutual TLS.
    wanted = ["tls", component] if component == "external" else [component]
    objects = combined(tmp_path, below, wanted)
    assert objects != overlay(below)
    for manifest in objects:
        if not manifest["apiVersion"].startswith(CUSTOM):
            validate(manifest, VERSIONS[-1])


def test_the_examples_have_every_component():
    """By itself or as part of another, but that for plaintext behind a Gateway; so who looks at overlays sees all."""
    files = {name: (Path(__file__).parents[2] / "deploy/kubernetes/overlays" / name) for name in OVERLAYS}
    named = {
        Path(component).name
        for folder in files.values()
        for component in yaml.safe_load((folder / "kustomization.yaml").read_text()).get("components", [])
    }
    parts = {"tls", "policies", "autoscaling-drafters", "autoscaling-verifiers"}
    assert named | parts | {"routes"} == set(COMPONENTS)


def closed(schema: Any) -> Any:
    """A schema of a CRD as JSON Schema that lets no unknown field through."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if "properties" in schema and "additionalProperties" not in schema:
        made["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    return made


def mistakes(manifest: Manifest) -> list[str]:
    """By KubeRay's own definition of its kind."""
    assert CRDS is not None
    written = (Path(CRDS) / f"ray.io_{manifest['kind'].lower()}s.yaml").read_text()
    definition = yaml.load(written, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # a megabyte
    version = manifest["apiVersion"].partition("/")[2]
    [schema] = [each["schema"] for each in definition["spec"]["versions"] if each["name"] == version]
    found = closed(schema["openAPIV3Schema"])
    found["properties"]["metadata"] = {"type": "object"}
    return [error.message[:200] for error in jsonschema.Draft202012Validator(found).iter_errors(manifest)]


@pytest.mark.skipif(CRDS is None, reason="DRAGOMAN_KUBERAY_CRDS names no folder with KubeRay's definitions")
def test_what_is_for_kuberay_is_what_it_takes():
    objects = overlay("kuberay")
    [cluster], [job] = of_kind(objects, "RayCluster"), of_kind(objects, "RayJob")
    assert mistakes(cluster) == [] and mistakes(job) == []
    assert mistakes({**cluster, "spec": {**cluster["spec"], "minReplica": 1}})


def test_nothing_of_the_cluster_is_named_in_the_manifests():
    """No address, no registry but the example's: what is to be replaced is found by these names."""
    for name in OVERLAYS:
        for pod in pods(overlay(name)):
            for container in pod.containers:
                assert re.fullmatch(r"registry\.example/dragoman/\w+:[\d.]+", container["image"]), container["image"]
