"""What runs from deploy/kubernetes may do little, ends in time, has no secret in it, and is closed by policies."""

from __future__ import annotations

import re
from typing import Any

import pytest

from gateway.settings import GatewaySettings
from tests.support.manifests import OVERLAYS, Manifest, Pod, of_kind, overlay, pods
from transport.address import COORDINATOR_PORT, DEFAULT_PORT
from transport.durations import parse_duration


def option(container: Manifest, name: str) -> str | None:
    found = [word.partition("=")[2] for word in container.get("args", []) if word.startswith(f"--{name}=")]
    return found[0] if found else None


@pytest.mark.parametrize("name", OVERLAYS)
def test_pods_are_restricted(name: str):
    """By the rules of Pod Security's level `restricted`, and a root file system that nobody writes to."""
    for pod in pods(overlay(name)):
        context = pod.spec["securityContext"]
        assert context["runAsNonRoot"] and context["runAsUser"] > 10_000, pod.where
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, pod.where
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod.spec), pod.where
        assert all("hostPath" not in volume for volume in pod.spec["volumes"]), pod.where
        for container in pod.containers:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False and own["readOnlyRootFilesystem"] is True, pod.where
            assert own["capabilities"] == {"drop": ["ALL"]}, pod.where
            assert not {"privileged", "runAsUser"} & set(own), pod.where
            mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert "/tmp" in mounts, pod.where
            homes = {each["value"] for each in container["env"] if each["name"] in {"HOME", "DRAGOMAN_HOME"}}
            assert homes <= mounts, pod.where


@pytest.mark.parametrize("name", OVERLAYS)
def test_pods_say_what_they_take(name: str):
    for pod in pods(overlay(name)):
        for container in pod.containers:
            asked, most = container["resources"]["requests"], container["resources"]["limits"]
            assert {"cpu", "memory"} <= set(asked) and {"cpu", "memory"} <= set(most), pod.where
        for volume in pod.spec["volumes"]:
            assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"], pod.where


@pytest.mark.parametrize("name", OVERLAYS)
def test_nobody_talks_to_the_api_server_but_rays_autoscaler(name: str):
    objects = overlay(name)
    accounts = {each["metadata"]["name"]: each for each in of_kind(objects, "ServiceAccount")}
    for pod in pods(objects):
        has_token = pod.spec.get("automountServiceAccountToken")
        if has_token is None:  # by its account, which for a Ray head without one would be that of the cluster's name
            has_token = accounts[pod.spec["serviceAccountName"]].get("automountServiceAccountToken", True)
        assert has_token is pod.where.endswith("head"), pod.where


@pytest.mark.parametrize("name", OVERLAYS)
def test_pods_go_where_their_images_run(name: str):
    for pod in pods(overlay(name)):
        assert pod.spec["nodeSelector"]["kubernetes.io/arch"] == "amd64", pod.where


@pytest.mark.parametrize("name", OVERLAYS)
def test_ours_are_checked_for_health(name: str):
    """KubeRay has checks of its own for what it starts."""
    for pod in pods(overlay(name)):
        if pod.where.startswith("Ray"):
            continue
        [container] = pod.containers
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert {"grpc", "httpGet"} & set(container[probe]), pod.where
        # Where no verifier is, a gateway is not to be restarted for it.
        if "httpGet" in container["livenessProbe"]:
            assert container["livenessProbe"]["httpGet"]["path"] == "/version"
            assert container["readinessProbe"]["httpGet"]["path"] == "/health"


@pytest.mark.parametrize("name", OVERLAYS)
def test_there_is_time_to_take_leave(name: str):
    """Texts end for --grace, then go on elsewhere, before Kubernetes kills."""
    graces = []
    for pod in pods(overlay(name)):
        for container in pod.containers:
            if (grace := option(container, "grace")) is not None:
                graces.append(seconds := parse_duration("grace", grace))
                before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
                assert before + seconds + 5 <= pod.spec["terminationGracePeriodSeconds"], pod.where
    assert graces or name == "edge"
    assert GatewaySettings.model_fields["grace"].default == 30


def test_the_coordinator_is_one():
    [coordinator] = [each for each in of_kind(overlay("plain"), "Deployment") if "coordinator" in str(each["metadata"])]
    assert coordinator["spec"]["replicas"] == 1 and coordinator["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_secret_stands_in_a_manifest(name: str):
    objects = overlay(name)
    assert of_kind(objects, "Secret") == []
    for each in of_kind(objects, "ConfigMap"):
        for key, value in each["data"].items():
            assert "PRIVATE KEY" not in value
            assert not re.search("TOKEN|PASSWORD|SECRET", key) or value.startswith("/"), key
    for pod in pods(objects):
        for container in pod.containers:
            for variable in container["env"]:
                assert not re.search("TOKEN|PASSWORD|SECRET", variable["name"]), pod.where


def test_with_tls_nothing_is_left_in_plaintext():
    """And what is dialled by name is in the certificate of whoever serves there."""
    objects = overlay("cloud")
    [config] = [each["data"] for each in of_kind(objects, "ConfigMap") if "DRAGOMAN_ALLOW_PLAINTEXT" in each["data"]]
    assert config["DRAGOMAN_ALLOW_PLAINTEXT"] == "0"
    [folder] = {value.rpartition("/")[0] for name, value in config.items() if name.startswith("DRAGOMAN_TLS_")}
    for pod in pods(objects):
        mounts = {mount["mountPath"]: mount["name"] for mount in pod.containers[0]["volumeMounts"]}
        [secret] = [each["secret"]["secretName"] for each in pod.spec["volumes"] if each["name"] == mounts[folder]]
        assert secret == f"{pod.labels['app.kubernetes.io/component']}-tls"
        assert "--allow-plaintext" not in pod.containers[0].get("args", [])
    names = {each["metadata"]["name"]: each["spec"].get("dnsNames", []) for each in of_kind(objects, "Certificate")}
    assert {"coordinator", "coordinator.dragoman.example"} <= set(names["coordinator"])
    assert {"gateway.dragoman.svc", "api.dragoman.example"} <= set(names["gateway"])
    assert {"*.verifiers.dragoman.svc", "*.verifiers.dragoman.example"} <= set(names["verifier"])
    assert config["DRAGOMAN_GATEWAY_COORDINATOR"].partition(":")[0] in names["coordinator"]


def selects(selector: Manifest, pod: Pod) -> bool:
    """Whether a selector of labels takes the pod. What KubeRay labels is left out."""
    labels = {key: value for key, value in selector.get("matchLabels", {}).items() if not key.startswith("ray.io/")}
    return labels.items() <= pod.labels.items() and all(
        pod.labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", [])
    )


def allowed(objects: list[Manifest], way: str, pod: Pod) -> set[tuple[str, int]]:
    """(component, port) that the policies let in (way "ingress") or out; "*": anybody."""
    found: set[tuple[str, int]] = set()
    side = {"ingress": "from", "egress": "to"}[way]
    for policy in of_kind(objects, "NetworkPolicy"):
        if selects(policy["spec"]["podSelector"], pod):
            for rule in policy["spec"].get(way, []):
                for peer in rule.get(side, [{}]):
                    for port in rule.get("ports", []):
                        found |= {(name, port["port"]) for name in _components(peer)}
    return found


def _components(peer: Any) -> list[str]:
    selector = peer.get("podSelector", {})
    named = [name for each in selector.get("matchExpressions", []) for name in each["values"]]
    one = selector.get("matchLabels", {}).get("app.kubernetes.io/component")
    return [*named, *([one] if one else [])] or ["*"]


def test_policies_let_through_what_a_fleet_needs_and_are_closed_else():
    objects = overlay("cloud")
    policies = {each["metadata"]["name"]: each["spec"] for each in of_kind(objects, "NetworkPolicy")}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert {port["port"] for rule in policies["dns"]["egress"] for port in rule["ports"]} == {53}
    assert policies["dns"]["podSelector"] == {}
    dialled = {
        "coordinator": set(),
        "drafter": {("coordinator", COORDINATOR_PORT), ("verifier", DEFAULT_PORT)},
        "gateway": {("coordinator", COORDINATOR_PORT), ("verifier", DEFAULT_PORT)},
        "verifier": {("coordinator", COORDINATOR_PORT)},
    }
    by_component = {pod.labels["app.kubernetes.io/component"]: pod for pod in pods(objects)}
    assert set(by_component) == set(dialled)
    for name, wanted in dialled.items():
        assert wanted <= allowed(objects, "egress", by_component[name]), name
        for server, port in wanted:
            assert (name, port) in allowed(objects, "ingress", by_component[server]), (name, server)
    assert allowed(objects, "ingress", by_component["drafter"]) == set()


@pytest.mark.parametrize("name", ["cloud", "kuberay-cloud"])
def test_policies_and_budgets_select_somebody(name: str):
    objects = overlay(name)
    for each in (*of_kind(objects, "NetworkPolicy"), *of_kind(objects, "PodDisruptionBudget")):
        selector = each["spec"].get("podSelector", each["spec"].get("selector"))
        there = [pod for pod in pods(objects) if selects(selector, pod)]
        assert there or "batch.kubernetes.io/job-name" in selector["matchLabels"], each["metadata"]["name"]
    [namespace] = of_kind(objects, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_ray_asks_for_a_token():
    [cluster] = of_kind(overlay("kuberay"), "RayCluster")
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
