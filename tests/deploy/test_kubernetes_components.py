"""Components combine as docs/kubernetes.md says, and whatever else somebody writes is an error, not another fleet."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml

from tests.support.manifests import (
    COMPONENTS,
    KUBERNETES,
    OVERLAYS,
    Manifest,
    combine,
    combined,
    kustomize,
    of_kind,
    overlay,
    rendered,
)
from tests.support.repository import ROOT

PAGE = ROOT / "docs" / "kubernetes.md"
NO_STATEFUL_SET = "StatefulSet.v1.apps/verifier"
NO_CERTIFICATE = "Certificate.v1.cert-manager.io/coordinator"
#: Overlay, components, and what the error must name.
WRONG = [
    ("plain", "external", NO_CERTIFICATE),
    ("plain", "external tls", NO_CERTIFICATE),
    ("plain", "external security", NO_CERTIFICATE),
    ("plain", "policies external tls", NO_CERTIFICATE),
    ("plain", "tls monitoring", "monitoring-comes-before-tls"),
    ("plain", "security monitoring", "monitoring-comes-before-tls"),
    ("plain", "tls external policies", "policies-come-before-external"),
    ("plain", "tls external autoscaling", "autoscaling-comes-before-external"),
    ("plain", "tls external autoscaling-verifiers", "autoscaling-comes-before-external"),
    ("plain", "tls routes", "routes-go-without-tls"),
    ("plain", "routes tls", "routes-go-without-tls"),
    ("plain", "routes policies", "policies-come-before-routes"),
    ("kuberay", "routes ray-policies", "policies-come-before-routes"),
    ("plain", "ray-policies", "RayCluster.v1.ray.io/dragoman"),
    *(("kuberay", each, NO_STATEFUL_SET) for each in ("gpu", "tls", "policies", "security", "autoscaling")),
    ("kuberay", "autoscaling-verifiers", NO_STATEFUL_SET),
    ("kuberay", "autoscaling-drafters", "Deployment.v1.apps/drafter"),
    ("kuberay", "spot", "Deployment.v1.apps/drafter"),
    ("kuberay", "external", NO_CERTIFICATE),
    ("kuberay", "tls external", NO_STATEFUL_SET),
    ("kuberay", "monitoring ray-policies tls", NO_STATEFUL_SET),
    ("edge", "monitoring", "Deployment.v1.apps/gateway"),
    ("edge", "routes", "Deployment.v1.apps/gateway"),
    ("edge", "security", NO_STATEFUL_SET),
]
RIGHT = [
    ("plain", "gpu spot"),
    ("plain", "monitoring tls"),
    ("plain", "monitoring security"),
    ("plain", "monitoring autoscaling policies"),
    ("plain", "monitoring autoscaling-drafters security external"),
    ("plain", "gpu spot monitoring autoscaling security external"),
    ("plain", "tls external"),
    ("plain", "tls policies external"),
    ("plain", "monitoring policies routes"),
    ("kuberay", "monitoring"),
    ("kuberay", "ray-policies"),
    ("kuberay", "monitoring ray-policies"),
    ("kuberay", "ray-policies monitoring"),
    ("kuberay", "ray-policies routes"),
]


def named(objects: list[Manifest], kind: str, name: str) -> Manifest:
    [found] = [each for each in of_kind(objects, kind) if each["metadata"]["name"] == name]
    return found


@pytest.mark.parametrize(("below", "components", "reason"), WRONG)
def test_a_wrong_combination_is_an_error_that_says_why(below: str, components: str, reason: str, tmp_path: Path):
    done = kustomize(combine(tmp_path, below, components.split()))
    assert done.returncode != 0 and done.stdout == ""
    assert reason in done.stderr


@pytest.mark.parametrize(("below", "components"), RIGHT)
def test_a_right_combination_renders_and_nothing_of_it_is_left_out(below: str, components: str, tmp_path: Path):
    names = components.split()
    objects = combined(tmp_path, below, names)
    secure = {"tls", "security"} & set(names)
    if "monitoring" in names:
        [endpoint] = named(objects, "ServiceMonitor", "gateway")["spec"]["endpoints"]
        assert endpoint["scheme"] == ("https" if secure else "http")
    if {"policies", "ray-policies"} & set(names):
        opened = named(objects, "NetworkPolicy", "coordinator")["spec"]["ingress"][1:]
        selectors = [source["namespaceSelector"]["matchLabels"] for each in opened for source in each.get("from", [])]
        assert selectors == [{"dragoman/gateway": "true"}] * ("routes" in names)
    if "external" in names:
        certificates = {each["metadata"]["name"]: each["spec"] for each in of_kind(objects, "Certificate")}
        for name in ("coordinator", "verifier", "gateway"):
            assert certificates[name]["dnsNames"][-1].endswith(".dragoman.example")


def test_the_page_lists_components_in_an_order_that_is_right():
    """Which is the rule that it gives."""
    table = PAGE.read_text().partition("| component |")[2].partition("\n\n")[0]
    listed = [name for row in table.splitlines() for name in re.findall(r"`([\w-]+)`", row.split("|")[1])]
    assert set(listed) == set(COMPONENTS) and len(listed) == len(COMPONENTS)
    for below, components in RIGHT:
        if below == "plain":
            places = [listed.index(name) for name in components.split()]
            assert places == sorted(places), components


def test_another_namespace_is_another_one_everywhere(tmp_path: Path):
    """In what Kustomize's own `namespace` does not know: names in certificates, queries."""
    wanted = ["monitoring", "autoscaling", "security", "external"]
    there = [os.path.relpath(KUBERNETES / "transformers" / "namespace", tmp_path)]
    objects = rendered(combine(tmp_path, "plain", wanted, namespace="llm", transformers=there))
    assert {each["metadata"].get("namespace", "llm") for each in objects} == {"llm"}
    assert [each["metadata"]["name"] for each in of_kind(objects, "Namespace")] == ["llm"]
    written = yaml.safe_dump_all(objects)
    assert not re.search(r"\.dragoman\b(?!\.example)|namespace=\W*dragoman", written)
    assert "coordinator.llm.svc.cluster.local" in named(objects, "Certificate", "coordinator")["spec"]["dnsNames"]
    assert "gateway.llm.svc" in named(objects, "Certificate", "gateway")["spec"]["dnsNames"]
    assert "*.verifiers.llm.svc" in named(objects, "Certificate", "verifier")["spec"]["dnsNames"]
    for name, times in (("verifier", 3), ("drafter", 1)):
        [trigger] = named(objects, "ScaledObject", name)["spec"]["triggers"]
        assert trigger["metadata"]["query"].count('{namespace="llm"}') == times


@pytest.mark.parametrize("name", ["plain", "cloud", "kuberay-cloud"])
def test_in_the_namespace_of_the_manifests_nothing_is_replaced(name: str, tmp_path: Path):
    there = [os.path.relpath(KUBERNETES / "transformers" / "namespace", tmp_path)]
    assert rendered(combine(tmp_path, name, [], transformers=there)) == overlay(name)


def test_prometheus_asks_the_gateway_by_a_name_of_its_certificate():
    objects = overlay("cloud")
    [endpoint] = named(objects, "ServiceMonitor", "gateway")["spec"]["endpoints"]
    assert endpoint["tlsConfig"]["serverName"] in named(objects, "Certificate", "gateway")["spec"]["dnsNames"]


def test_alerts_are_by_namespace():
    """A quiet fleet would hide another one's trouble."""
    [rules] = of_kind(overlay("cloud"), "PrometheusRule")
    for rule in rules["spec"]["groups"][0]["rules"]:
        sums = re.findall(r"\b(?:sum|count)\b(?: by \(([^)]*)\))?", rule["expr"])
        assert sums and all("namespace" in by for by in sums), rule["alert"]


def test_drafters_elsewhere_are_taken_away_without_the_fleet():
    """`kubectl delete -k` of the one takes its namespace along."""
    fleets = {each["metadata"]["name"] for name in OVERLAYS if name != "edge" for each in overlay(name)}
    [namespace] = of_kind(overlay("edge"), "Namespace")
    assert namespace["metadata"]["name"] not in fleets
    assert {each["metadata"].get("namespace") for each in overlay("edge")} == {namespace["metadata"]["name"], None}


def test_verifiers_have_public_names_that_their_certificate_has_and_nobody_else():
    objects = overlay("cloud")
    [container] = named(objects, "StatefulSet", "verifier")["spec"]["template"]["spec"]["containers"]
    variables = {each["name"]: each.get("value") for each in container["env"]}
    level = variables["DRAGOMAN_VERIFIER_ADVERTISE"].partition(":")[0].removeprefix("$(POD_NAME).")
    public = {
        each["metadata"]["name"]: each["metadata"]["annotations"]["external-dns.alpha.kubernetes.io/hostname"]
        for each in of_kind(objects, "Service")
        if each["spec"].get("type") == "LoadBalancer"
    }
    inside = {name for name in public.values() if name.partition(".")[2] == level}
    assert inside == {f"verifier-{number}.{level}" for number in range(2)}
    assert len(public) == 4
    assert f"*.{level}" in named(objects, "Certificate", "verifier")["spec"]["dnsNames"]


def test_policies_open_for_who_comes_from_outside_only_where_somebody_may(tmp_path: Path):
    """With `external` members dial each other at public names too, which no selector of pods knows."""
    anywhere = {"ports": [{"port": 50061, "protocol": "TCP"}]}
    ways = {"verifier": "ingress", "drafter": "egress", "gateway": "egress"}
    closed, open_ = combined(tmp_path, "plain", ["policies"]), overlay("cloud")
    for name, way in ways.items():
        assert anywhere not in named(closed, "NetworkPolicy", name)["spec"][way]
        assert anywhere in named(open_, "NetworkPolicy", name)["spec"][way]
    inward = {"ports": [{"port": 50060, "protocol": "TCP"}]}
    assert inward not in named(closed, "NetworkPolicy", "coordinator")["spec"]["ingress"]
    assert inward in named(open_, "NetworkPolicy", "coordinator")["spec"]["ingress"]


def test_verifiers_can_be_scaled_without_drafters(tmp_path: Path):
    objects = combined(tmp_path, "plain", ["autoscaling-verifiers"])
    assert "replicas" not in named(objects, "StatefulSet", "verifier")["spec"]
    assert named(objects, "Deployment", "drafter")["spec"]["replicas"] == 2
    assert [each["metadata"]["name"] for each in of_kind(objects, "ScaledObject")] == ["verifier"]


def test_drafters_can_be_scaled_without_verifiers(tmp_path: Path):
    objects = combined(tmp_path, "plain", ["autoscaling-drafters"])
    assert "replicas" not in named(objects, "Deployment", "drafter")["spec"]
    assert named(objects, "StatefulSet", "verifier")["spec"]["replicas"] == 2
    assert [each["metadata"]["name"] for each in of_kind(objects, "ScaledObject")] == ["drafter"]


def test_no_data_is_not_taken_for_no_load():
    """Prometheus away, or no verifier scraped: scaled down, the fleet would lose what still works."""
    for scaled in of_kind(overlay("cloud"), "ScaledObject"):
        [trigger] = scaled["spec"]["triggers"]
        assert trigger["metadata"]["ignoreNullValues"] == "false"
        assert not re.search(r"vllm:[^)]*\)\s*or vector", trigger["metadata"]["query"])
