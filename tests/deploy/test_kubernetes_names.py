"""Commands, variables, ports, health services, metrics and labels named in manifests are those of the code."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from drafter_service.settings import DrafterSettings
from dragoman.cli import app
from dragoman.drafting import SERVICE as DRAFTER
from dragoman.ray_fleet.config import read_fleet
from gateway.metrics import GatewayMetrics
from protos.dragoman.v1 import dragoman_pb2 as pb
from tests.support.manifests import KUBERNETES, OVERLAYS, Manifest, combined, literals, of_kind, overlay, pods
from tests.support.repository import ROOT
from tests.support.text_engine import TextEngine
from transport.address import COORDINATOR_PORT, DEFAULT_PORT, HEALTH_PORT, Address
from transport.identity import Identity
from transport.security import Security
from verifier_service.instruments import PrometheusInstruments
from verifier_service.metrics import StreamEnding, VerifierMetrics

#: Variables that others than Dragoman read, and those that only serve to make others.
OF_OTHERS = {"HOME", "RAY_worker_niceness"}
HELPERS = {"POD_NAME", "POD_NAMESPACE", "NODE_NAME"}


def containers() -> list[Any]:
    """(a name for messages, the objects that it is among, the container)."""
    found = []
    for name in OVERLAYS:
        objects = overlay(name)
        for pod in pods(objects):
            found += [(f"{name}: {pod.where}", objects, container) for container in pod.containers]
    return found


def command_line(objects: list[Manifest], container: Manifest) -> list[str]:
    """Its arguments, with what Kubernetes puts in for $(NAME)."""
    values = literals(objects, container)
    return [re.sub(r"\$\((\w+)\)", lambda name: values[name[1]], word) for word in container["args"]]


def parsed(arguments: list[str], monkeypatch: pytest.MonkeyPatch, **environment: str) -> dict[str, Any]:
    """The options that a command gets from these arguments and variables. Raises typer's usage errors."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    root: Any = typer.main.get_command(app)
    context = root.make_context("dragoman", list(arguments), auto_envvar_prefix="DRAGOMAN")
    name, command, rest = root.resolve_command(context, list(arguments))
    return command.make_context(name, rest, parent=context).params


def test_every_command_is_one_that_the_command_line_takes(monkeypatch: pytest.MonkeyPatch):
    seen = set()
    for where, objects, container in containers():
        if "args" not in container:  # what Ray starts there is Ray's
            continue
        assert container["command"] == ["dragoman"], where
        with monkeypatch.context() as patch:
            arguments = command_line(objects, container)
            options = parsed(arguments, patch, **literals(objects, container))
        seen.add(arguments[0])
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        for option, port in (("listen", "grpc"), ("health_listen", "health"), ("metrics_port", "metrics")):
            given = options.get(option)
            if given is not None:
                port = "http" if arguments[0] == "gateway" else port
                number = given if isinstance(given, int) else Address.parse(given, field=option).port
                assert ports.pop(port) == number, where
        assert ports == {}, where
    assert seen == {"coordinator", "drafter", "gateway", "verifier"}


def test_every_variable_is_read_by_somebody() -> None:
    root: Any = typer.main.get_command(app)
    known = set(OF_OTHERS) | {f"DRAGOMAN_{name.upper()}" for name in Security.model_fields} | {"DRAGOMAN_HOME"}
    for command in ("coordinator", "drafter", "gateway", "verifier"):
        options = root.commands[command].params
        known |= {f"DRAGOMAN_{command}_{option.name}".upper() for option in options}
    for where, objects, container in containers():
        assert set(literals(objects, container)) <= known | HELPERS, where
    assert 'environ.get("DRAGOMAN_HOME")' in (ROOT / "language_models" / "conversions.py").read_text()


def test_variables_are_made_of_those_before_them():
    """Kubernetes puts in what stands earlier in the list; a later one would be left as it is written."""
    found = 0
    for where, _, container in containers():
        known: set[str] = set()
        for variable in container.get("env", ()):
            used = re.findall(r"\$\((\w+)\)", variable.get("value", ""))
            assert set(used) <= known, f"{where}: {variable['name']} uses {used}, before it stand {sorted(known)}"
            found += len(used)
            known.add(variable["name"])
    assert found, "some are"


def test_no_verifier_is_scaled_up_to_where_no_load_balancer_leads():
    objects = overlay("cloud")
    (scaled,) = [each for each in of_kind(objects, "ScaledObject") if each["metadata"]["name"] == "verifier"]
    services = [each["metadata"]["name"] for each in of_kind(objects, "Service")]
    outside = [name for name in services if re.fullmatch(r"verifier-\d+-external", name)]
    assert scaled["spec"]["maxReplicaCount"] == len(outside) > 1


def test_ports_are_those_of_the_code_everywhere():
    for name in OVERLAYS:
        for pod in pods(objects := overlay(name)):
            component = pod.labels.get("app.kubernetes.io/component")
            grpc = {"coordinator": COORDINATOR_PORT, "verifier": DEFAULT_PORT}.get(component or "")
            ports = {port["name"]: port["containerPort"] for each in pod.containers for port in each.get("ports", [])}
            assert ports.get("grpc") == grpc, pod.where
            assert ports.get("health", HEALTH_PORT) == HEALTH_PORT, pod.where
            for container in pod.containers:
                for variable, value in literals(objects, container).items():
                    if variable.endswith("_COORDINATOR"):
                        assert value.rpartition(":")[2] == str(COORDINATOR_PORT), pod.where
                    if variable.endswith("_ADVERTISE"):
                        assert value.rpartition(":")[2] == str(DEFAULT_PORT), pod.where


def test_services_lead_to_ports_of_the_pods_that_they_select():
    for name in OVERLAYS:
        objects = overlay(name)
        for service in of_kind(objects, "Service"):
            selector = service["spec"]["selector"]
            wanted = {key: value for key, value in selector.items() if not key.startswith("statefulset.")}
            behind = [pod for pod in pods(objects) if wanted.items() <= pod.labels.items()]
            if "statefulset.kubernetes.io/pod-name" in selector:
                behind = [pod for pod in pods(objects) if pod.where.startswith("StatefulSet")]
            assert behind, service["metadata"]["name"]
            for pod in behind:
                names = {port["name"] for each in pod.containers for port in each["ports"]}
                assert {port["targetPort"] for port in service["spec"]["ports"]} <= names, pod.where


def test_health_checks_ask_for_services_that_there_are():
    there = {service.full_name for service in pb.DESCRIPTOR.services_by_name.values()} | {DRAFTER}
    asked = set()
    for where, _, container in containers():
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            if (check := container.get(kind, {}).get("grpc")) is not None:
                assert check["port"] == HEALTH_PORT, where
                asked.add(check["service"])
    assert asked == there


def test_routes_name_services_that_there_are(tmp_path: Path):
    objects = combined(tmp_path, "plain", ["routes"])
    there = {service.full_name for service in pb.DESCRIPTOR.services_by_name.values()}
    ports = {each["metadata"]["name"]: each["spec"]["ports"] for each in of_kind(objects, "Service")}
    for route in (*of_kind(objects, "GRPCRoute"), *of_kind(objects, "HTTPRoute")):
        for rule in route["spec"]["rules"]:
            assert {match["method"]["service"] for match in rule.get("matches", [])} <= there
            for backend in rule["backendRefs"]:
                assert backend["port"] in {port["port"] for port in ports[backend["name"]]}


@cache
def metrics() -> frozenset[str]:
    """Names of samples on the pages of a verifier and of a gateway."""
    registry = CollectorRegistry()
    VerifierMetrics(PrometheusInstruments(registry, "target", "one"), engine=TextEngine(), sessions={})
    page = GatewayMetrics(running=lambda: 0, waiting=lambda: 0).page().decode()
    families = [*registry.collect(), *text_string_to_metric_families(page)]
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    return frozenset(family.name + ending for family in families for ending in endings[family.type])


def expressions() -> dict[str, str]:
    """PromQL in alerts and in what scales, by name."""
    objects = overlay("cloud")
    [rules] = of_kind(objects, "PrometheusRule")
    found = {rule["alert"]: rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"]}
    for scaled in of_kind(objects, "ScaledObject"):
        [trigger] = scaled["spec"]["triggers"]
        found[f"scales {scaled['metadata']['name']}"] = trigger["metadata"]["query"]
    return found


def test_alerts_and_scaling_ask_for_metrics_that_there_are():
    for name, expression in expressions().items():
        plain = expression.replace('"(ray_)?', '"').replace("vllm[:_]", "vllm:")
        named = set(re.findall(r"\b(?:dragoman_|vllm:)\w+", plain))
        assert named and named <= metrics(), name
        assert expression.count("(") == expression.count(")"), name
    [ending] = re.findall(r'ending="(\w+)"', expressions()["DragomanDraftersBreakOff"])
    assert ending == StreamEnding.BROKEN.value


def test_each_alert_has_a_runbook():
    [rules] = of_kind(overlay("cloud"), "PrometheusRule")
    page = (ROOT / "docs" / "operations.md").read_text()
    headings = set(re.findall(r"^### (\w+)$", page, re.MULTILINE))
    alerts = {rule["alert"]: rule for group in rules["spec"]["groups"] for rule in group["rules"]}
    assert headings == set(alerts)
    for name, rule in alerts.items():
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
        assert rule["labels"]["severity"] in {"warning", "critical"}


def test_a_drafter_is_there_for_as_many_sessions_as_one_takes(monkeypatch: pytest.MonkeyPatch):
    objects = overlay("cloud")
    thresholds = {
        each["metadata"]["name"]: int(each["spec"]["triggers"][0]["metadata"]["threshold"])
        for each in of_kind(objects, "ScaledObject")
    }
    [drafter] = [pod for pod in pods(objects) if pod.where == "Deployment drafter"]
    [verifier] = [pod for pod in pods(objects) if pod.where == "StatefulSet verifier"]
    [at_once] = [int(word.partition("=")[2]) for word in drafter.containers[0]["args"] if "max-sessions" in word]
    [texts] = [int(word.partition("=")[2]) for word in verifier.containers[0]["args"] if "max-sessions" in word]
    assert thresholds["drafter"] == at_once == DrafterSettings.model_fields["max_sessions"].default
    assert thresholds["verifier"] < texts


def test_monitors_find_what_they_watch():
    objects = overlay("cloud")
    for monitor in of_kind(objects, "ServiceMonitor"):
        labels = monitor["spec"]["selector"]["matchLabels"]
        found = [
            each for each in of_kind(objects, "Service") if labels.items() <= each["metadata"].get("labels", {}).items()
        ]
        [service] = found
        ports = {port["name"] for port in service["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports


def test_certificates_say_who_is_who():
    objects = overlay("cloud")
    holders = {}
    for certificate in of_kind(objects, "Certificate"):
        spec = certificate["spec"]
        if spec.get("isCA"):
            continue
        [uri] = spec["uris"]
        identity = Identity.parse(uri)
        assert identity is not None, uri
        holders[certificate["metadata"]["name"]] = identity.role.value
        assert bool(spec.get("dnsNames")) == ("server auth" in spec["usages"])
        assert identity.role.value == "coordinator" or "client auth" in spec["usages"]
    assert holders == {"coordinator": "coordinator", "drafter": "drafter", "gateway": "client", "verifier": "verifier"}


def test_there_is_one_ray():
    [cluster] = of_kind(overlay("kuberay"), "RayCluster")
    version = cluster["spec"]["rayVersion"]
    assert f"ray=={version}" in (ROOT / "constraints.txt").read_text().split()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    [asked] = extras["ray"]
    assert version.startswith(asked.partition(">=")[2])


def test_the_fleet_file_is_one_and_its_nodes_are_there(tmp_path: Path):
    objects = overlay("kuberay")
    [written] = [each for each in of_kind(objects, "ConfigMap") if each["metadata"]["name"] == "dragoman-fleet"]
    path = tmp_path / "fleet.yaml"
    path.write_text(written["data"]["fleet.yaml"])
    fleet = read_fleet(path)
    [cluster] = of_kind(objects, "RayCluster")
    labels = [group["labels"] for group in cluster["spec"]["workerGroupSpecs"]]
    assert all(dict(group.labels) in labels for group in fleet.groups)
    assert fleet.coordinator.port == COORDINATOR_PORT and fleet.targets[0].port == DEFAULT_PORT
    [job] = of_kind(objects, "RayJob")
    words = job["spec"]["entrypoint"].split()
    assert words[:3] == ["dragoman", "fleet", "up"]
    root: Any = typer.main.get_command(app)
    root.commands["fleet"].commands["up"].make_context("up", words[3:])
    [head] = [pod for pod in pods(objects) if pod.where.endswith("head")]
    mounts = {mount["mountPath"]: mount["name"] for mount in head.containers[0]["volumeMounts"]}
    config = words[words.index("--config") + 1]
    assert mounts[str(Path(config).parent)] == "fleet"


def test_registry_and_tags_stand_in_one_list_of_each_overlay():
    """And nowhere else, so that they can be set."""
    for path in sorted(KUBERNETES.rglob("*.yaml")):
        written = [line for line in path.read_text().splitlines() if "registry.example/" in line]
        assert all(line.strip().startswith("newName:") for line in written), path
        assert len(written) == len(set(written)), path
