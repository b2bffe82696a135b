"""What docs/kubernetes.md prints is true where it takes no cluster: overlays render, kubectl takes the commands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dragoman.ray_fleet.config import read_fleet
from tests.support.manifests import KUBERNETES, OVERLAYS, Manifest, combine, kubectl, of_kind, rendered
from tests.support.repository import ROOT

PAGE = (ROOT / "docs" / "kubernetes.md").read_text()
BLOCKS = re.findall(r"^```(?:\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
WORDS = re.findall(r"`(kubectl [^`]*)`", re.sub(r"^```.*?^```$", "", PAGE, flags=re.DOTALL | re.MULTILINE))
#: Nobody listens there: what kubectl says then is not about the command.
NOBODY = "http://127.0.0.1:1"
FILES = ("tls.crt", "tls.key", "ca.crt", "tokens", "edge-1-tls.crt", "edge-1-tls.key", "edge-1-ca.crt")


def printed_commands() -> list[str]:
    """Those of kubectl in blocks and in running text; what is only spoken of (`kubectl apply`) is left out."""
    found = [each for block in BLOCKS for each in re.findall(r"kubectl [^|&#\n]*", block)]
    found += [" ".join(each.split()) for each in WORDS if "..." not in each and not each.endswith(("apply", "-k"))]
    return list(dict.fromkeys(re.split(r" > |\)$| <<", each.partition(" | ")[0].strip())[0] for each in found))


def asked(command: str, folder: Path) -> str:
    """What kubectl says against it, with ``folder`` as the current one, where no API server answers."""
    stand_ins = {"deploy/kubernetes": str(KUBERNETES), "overlays/mine": "overlays/plain", "$head": "pod/head"}
    for word, stand_in in stand_ins.items():
        command = command.replace(word, stand_in)
    words = [kubectl(), f"--server={NOBODY}", *shlex.split(command)[1:]]
    environment = {**os.environ, "KUBECONFIG": os.devnull}
    given = "apiVersion: v1\nkind: Namespace\nmetadata: { name: x }\n"
    done = subprocess.run(words, cwd=folder, env=environment, input=given, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 or re.search("was refused|connection refused", done.stderr) else done.stderr


@pytest.mark.parametrize("command", printed_commands())
def test_every_printed_kubectl_command_is_one_that_kubectl_takes(command: str, tmp_path: Path):
    for name in FILES:
        (tmp_path / name).write_text("x")
    assert asked(command, tmp_path) == ""


def test_a_kubectl_command_that_is_wrong_is_noticed(tmp_path: Path):
    assert len(printed_commands()) > 30
    for wrong in ("kubectl -n dragoman rollout history", "kubectl get --no-such-option", "kubectl rollout und"):
        assert asked(wrong, tmp_path), wrong


def test_folders_that_are_applied_are_overlays():
    named = {
        name for command in printed_commands() for name in re.findall(r"-k deploy/kubernetes/overlays/(\w+)", command)
    }
    assert named <= {*OVERLAYS, "mine"} and "mine" in named


def block_with(word: str) -> Any:
    """The one block of YAML with the word."""
    [found] = [block for block in BLOCKS if word in block]
    return yaml.safe_load(found)


def as_overlay(tmp_path: Path, written: Manifest) -> list[Manifest]:
    """The objects of a printed overlay, which expects to be a neighbour of the others."""
    beside = os.path.relpath(KUBERNETES / "overlays" / "mine", tmp_path)
    lists = ("resources", "components", "transformers")
    moved = {key: [os.path.normpath(f"{beside}/{path}") for path in written.get(key, ())] for key in lists}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(written | moved))
    return rendered(tmp_path)


def test_the_printed_overlay_with_gpus_renders(tmp_path: Path):
    objects = as_overlay(tmp_path, block_with("resources: [../plain]"))
    [config] = [each for each in of_kind(objects, "ConfigMap") if "DRAGOMAN_VERIFIER_MODEL" in each["data"]]
    assert config["data"]["DRAGOMAN_VERIFIER_MODEL"] == "Qwen/Qwen2.5-7B-Instruct"


def test_the_printed_lines_move_a_fleet_to_another_namespace(tmp_path: Path):
    lines = block_with("transformers:")
    written = {**block_with("resources: [../plain]"), **lines}
    assert {each["metadata"].get("namespace", "llm") for each in as_overlay(tmp_path, written)} == {"llm"}


def test_the_printed_second_group_of_gpus_has_its_targets(tmp_path: Path):
    [fleet_file] = [block for block in BLOCKS if block.startswith("targets:")]
    (tmp_path / "fleet.yaml").write_text(fleet_file)
    objects = as_overlay(tmp_path, block_with("resources: [../kuberay]"))
    [cluster] = of_kind(objects, "RayCluster")
    groups = {group["groupName"]: group for group in cluster["spec"]["workerGroupSpecs"]}
    assert groups["large"]["template"]["spec"]["containers"][0]["image"].startswith("registry.example/dragoman/cuda:")
    assert groups["verifiers"]["labels"] != groups["large"]["labels"], "a copy of its own"
    [written] = [each for each in of_kind(objects, "ConfigMap") if each["metadata"]["name"] == "dragoman-fleet"]
    (tmp_path / "written.yaml").write_text(written["data"]["fleet.yaml"])
    fleet = read_fleet(tmp_path / "written.yaml")
    labels = [group["labels"] for group in groups.values()]
    assert all(dict(group.labels) in labels for group in fleet.groups)
    [policy] = [each for each in of_kind(objects, "NetworkPolicy") if each["metadata"]["name"] == "verifier"]
    opened = policy["spec"]["ingress"][0]["ports"][0]
    for target in fleet.targets:
        assert opened["port"] <= target.port_of(0) <= target.port_of(target.replicas - 1) <= opened["endPort"]
    [budget] = [each for each in of_kind(objects, "PodDisruptionBudget") if each["metadata"]["name"] == "verifier"]
    assert budget["spec"]["minAvailable"] == sum(target.replicas for target in fleet.targets) - 1


@pytest.mark.parametrize(
    ("word", "components", "kind"),
    [("/imagePullSecrets", [], "ServiceAccount"), ("of spot nodes elsewhere", ["spot"], "Deployment")],
)
def test_printed_patches_change_what_they_name(word: str, components: list[str], kind: str, tmp_path: Path):
    without, patched = tmp_path / "without", tmp_path / "patched"
    for folder in (without, patched):
        folder.mkdir()
    before = rendered(combine(without, "plain", components))
    after = rendered(combine(patched, "plain", components, **block_with(word)))
    [changed] = [new for old, new in zip(before, after, strict=True) if old != new]
    assert changed["kind"] == kind


def test_the_printed_public_route_trusts_a_name_that_the_gateway_has(tmp_path: Path):
    [written] = [block for block in BLOCKS if "BackendTLSPolicy" in block]
    (tmp_path / "public.yaml").write_text(written)
    below = os.path.relpath(KUBERNETES, tmp_path)
    both = [f"{below}/overlays/plain", "public.yaml"]
    objects = rendered(combine(tmp_path, "plain", ["security"], resources=both, namespace="dragoman"))
    [route], [policy] = of_kind(objects, "HTTPRoute"), of_kind(objects, "BackendTLSPolicy")
    [certificate] = [each for each in of_kind(objects, "Certificate") if each["metadata"]["name"] == "gateway"]
    [service] = [each for each in of_kind(objects, "Service") if each["metadata"]["name"] == "gateway"]
    [backend] = route["spec"]["rules"][0]["backendRefs"]
    assert backend == {"name": "gateway", "port": service["spec"]["ports"][0]["port"]}
    assert policy["spec"]["validation"]["hostname"] in certificate["spec"]["dnsNames"]
    [there] = policy["spec"]["validation"]["caCertificateRefs"]
    assert any(f"create configmap {there['name']} --from-file=ca.crt" in each for each in printed_commands())
