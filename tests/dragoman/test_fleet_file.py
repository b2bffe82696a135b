"""The fleet file: the commented one, and mistakes in one's own. No Ray is needed."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from coordinator.config import CoordinatorConfig
from deploy.fleet import fleet_arguments
from dragoman.cli import app
from dragoman.ray_fleet.calls import Outcome
from dragoman.ray_fleet.commands import how_to_get_text
from dragoman.ray_fleet.config import DrafterGroup, FleetFile, Target, read_fleet
from dragoman.ray_fleet.labels import fulfils, label_sets
from dragoman.ray_fleet.standing import Standing
from speculation.errors import InputError
from speculation.planning.plan import START
from transport.identity import Role
from transport.security import Security

EXAMPLE = Path(__file__).parent.parent.parent / "deploy" / "fleet.yaml"
TARGET = "targets:\n  - name: a\n    model: m\n"


def parse(arguments: list[str]) -> None:
    """As the command line would, and run nothing. Raises typer's usage errors."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("dragoman", list(arguments))
    _, command, rest = command.resolve_command(context, list(arguments))
    command.make_context("dragoman", rest, parent=context)


def read(tmp_path: Path, text: str) -> FleetFile:
    path = tmp_path / "fleet.yaml"
    path.write_text(text)
    return read_fleet(path)


def test_the_commented_file_names_every_setting_with_its_default():
    written = yaml.safe_load(EXAMPLE.read_text())
    fleet = read_fleet(EXAMPLE)
    assert set(written) == set(FleetFile.model_fields)
    assert set(written["coordinator"]) == {"port", "num_cpus", "labels", "settings"}
    assert set(written["targets"][0]) == set(Target.model_fields)
    assert set(written["drafters"][0]) == set(DrafterGroup.model_fields)
    assert fleet.coordinator.settings == CoordinatorConfig()
    # So that what the README scales it to has room on two CPUs, whoever else is told to have one.
    assert fleet.targets == [Target(name="qwen", model="qwen2.5-coder-1.5b", num_cpus=0.25)]
    assert fleet.drafters == [DrafterGroup(name="smollm2", model="smollm2-135m", num_cpus=0.1)]
    defaults = FleetFile(targets=[Target(name="a", model="m")])
    assert (fleet.wait_seconds, fleet.start_seconds) == (defaults.wait_seconds, defaults.start_seconds)
    assert fleet.coordinator == defaults.coordinator


def test_what_the_actors_are_told():
    target = Target(name="a", model="m", port=5000, max_sessions=3, threads=2)
    told = target.settings_of(2)
    assert (told.model, target.port_of(2), told.max_sessions, told.threads) == ("m", 5002, 3, 2)
    assert told.plan.plan() == START and Target(name="a", model="m").port_of(2) == 0


@pytest.mark.parametrize(
    "text, words",
    [
        ("", ["line 1", "targets", "is missing"]),
        ("targets: []", ["line 1", "targets", "at least 1"]),
        ("targets:\n  - name: a\n", ["line 2", "targets.0.model", "is missing"]),
        (TARGET + "    replcas: 2\n", ["line 4", "targets.0.replcas=2", "no such setting", "replicas"]),
        (TARGET + "    replicas: two\n", ["line 4", "targets.0.replicas='two'", "valid integer"]),
        (TARGET + "    num_gpus: 1.5\n", ["line 4", "targets.0.num_gpus=1.5", "less than or equal to 1"]),
        (TARGET + "    labels: {role: true}\n", ["line 4", "targets.0.labels.role=True", "valid string"]),
        (TARGET + "    labels: {role: '!edge,cloud'}\n", ["line 4", "labels.role='!edge,cloud'", "in(edge, cloud)"]),
        (TARGET + "    labels: {role: in(edge}\n", ["line 4", "labels.role='in(edge'", "selector of Ray"]),
        (TARGET + "    labels: {my role: edge}\n", ["line 4", "targets.0.labels.my role", "name of a label"]),
        ("coordinator:\n  labels: {role: ''}\n" + TARGET, ["line 2", "coordinator.labels.role=''", "selector of Ray"]),
        (TARGET + "    dtype: bf17\n", ["line 4", "targets.0.dtype='bf17'", "bfloat16"]),
        (TARGET + "    dtype: int8\n", ["line 4", "targets.0.dtype='int8'", "'auto', 'float32', 'bfloat16'"]),
        (TARGET + "    device: gpu\n", ["line 4", "targets.0.device='gpu'", "cuda"]),
        (TARGET + "    port: 65535\n    replicas: 2\n", ["line 4", "targets.0.port=65535", "beyond 65535"]),
        (
            TARGET + "    port: 5000\n    replicas: 3\n  - {name: b, model: m, port: 5002}\n",
            ["line 6", "targets.1.port=5002", "port 5002 is taken by a"],
        ),
        (TARGET + "    port: 50060\n", ["line 4", "targets.0.port=50060", "taken by coordinator"]),
        (TARGET + "    plan:\n      width: 999\n", ["line 5", "targets.0.plan.width=999", "256"]),
        (
            TARGET + "  - name: b\n    model: m\n  - name: B\n    model: m\n",
            ["line 6", "targets.2.name='B'", "pattern"],
        ),
        (TARGET + "drafters:\n  - name: a\n    model: m\n", ["line 5", "drafters.0.name='a'", "another group"]),
        (TARGET + "drafters: lookup\n", ["line 4", "drafters='lookup'", "valid list"]),
        (TARGET + "drafters:\n  - lookup\n", ["line 5", "drafters.0='lookup'", "settings of its own"]),
        ("coordinator:\n  settings:\n    listen: a:1\n" + TARGET, ["line 3", "listen='a:1'", "coordinator.port"]),
        ("coordinator:\n  settings:\n    plan:\n      max_with: 1\n" + TARGET, ["line 4", "max_with=1", "max_width"]),
        ("coordinator:\n  port: 0\n" + TARGET, ["line 2", "coordinator.port=0", "greater than or equal to 1"]),
        ("wait_seconds: -1\n" + TARGET, ["line 1", "wait_seconds=-1"]),
        ("targets: [", ["not YAML, line 1"]),
        (
            TARGET + "    replicas: 1\n    num_cpus: 1\n    replicas: 2\n",
            ["lines 4, 6", "targets.0.replicas=2", "more than once"],
        ),
        (TARGET + "drafters: []\n" + TARGET, ["lines 1, 5", "targets=[", "more than once"]),
        (
            TARGET + "    labels: {role: edge, zone: a, role: cloud}\n",
            ["lines 4, 4", "targets.0.labels.role='cloud'", "more than once"],
        ),
        (TARGET + "    num_cpu: 2\n", ["line 4", "targets.0.num_cpu=2", "did you mean num_cpus?"]),
        (TARGET + "security:\n  tls_ca: a\n", ["line 5", "security.tls_ca='a'", "without tls_cert and tls_key"]),
        (TARGET + "security:\n  allow_plaintext: false\n", ["line 5", "allow_plaintext=False", "no tls_cert"]),
        (TARGET + "    prompts_to: trusted\n", ["line 4", "targets.0.prompts_to='trusted'", "not asked who they are"]),
        (TARGET + "    trusted_drafters: [edge-1]\n", ["line 4", "trusted_drafters='edge-1'", "TLS in security"]),
        (TARGET + "security:\n  tls_revoked: a\n", ["line 5", "security.tls_revoked='a'", "without mutual TLS"]),
        (TARGET + "security:\n  tls_crt: a\n", ["line 5", "security.tls_crt='a'", "did you mean tls_cert?"]),
    ],
)
def test_mistakes_name_line_field_value_and_remedy(tmp_path: Path, text: str, words: list[str]):
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "fleet.yaml" in str(caught.value) and caught.value.remedy


def test_actors_have_certificates_of_their_roles(tmp_path: Path):
    assert read(tmp_path, TARGET).security.of_role(Role.VERIFIER) == Security(allow_plaintext=True)
    files = "security: {tls_cert: '/etc/{role}.pem', tls_key: '/etc/{role}.key', tls_ca: /etc/ca.pem}"
    security = read(tmp_path, f"{TARGET}{files}\n").security
    for role in (Role.COORDINATOR, Role.VERIFIER, Role.DRAFTER):
        told = security.of_role(role)
        assert (told.tls_cert, told.tls_key) == (f"/etc/{role}.pem", f"/etc/{role}.key")
        assert told.tls_ca == "/etc/ca.pem" and told.asks_for_certificates and told.dials_tls


def test_what_up_says_of_getting_text_works_as_printed():
    """From another machine too, where plaintext has to be asked for."""
    facts = {"kind": "coordinator", "outcome": Outcome.ANSWERED}
    for address, security, words in (
        ("127.0.0.1:50060", Security(allow_plaintext=True), "--coordinator 127.0.0.1:50060 --prompt"),
        ("192.0.2.2:50060", Security(allow_plaintext=True), "--coordinator 192.0.2.2:50060 --allow-plaintext --prompt"),
        ("192.0.2.2:50060", Security(tls_cert="c", tls_key="k", tls_ca="a"), "--tls-ca CA --tls-cert CERT"),
    ):
        said = how_to_get_text([Standing("coordinator", facts={"address": address}, **facts)], security)
        assert words in said
        for line in said.splitlines():
            if "dragoman " in line:
                parse(shlex.split(line.partition("dragoman ")[2]))


def test_a_local_ray_has_a_node_for_labels_that_exclude_each_other():
    asked = [{"role": "edge"}, {"role": "cloud", "zone": "in(a,b)"}, {"zone": "c"}, {"role": "!edge"}, {}]
    nodes = label_sets(asked)
    assert nodes == [{"role": "edge", "zone": "c"}, {"role": "cloud", "zone": "a"}]
    for selectors in asked:
        assert any(all(fulfils(node.get(name), each) for name, each in selectors.items()) for node in nodes)
    assert label_sets([{"role": "!edge"}, {"role": "edge"}]) == [{}, {"role": "edge"}]
    assert label_sets([{"role": "!in(a, b)"}, {"role": "c"}]) == [{"role": "c"}]
    fleet = FleetFile(targets=[Target(name="t", model="m")])
    assert label_sets(place.labels for place in fleet.places) == [{}]


def test_a_job_without_a_command_brings_the_fleet_up():
    assert fleet_arguments(["-c", "x.yaml"]) == ["fleet", "up", "-c", "x.yaml"]
    assert fleet_arguments(["down"]) == ["fleet", "down"]
    assert fleet_arguments([]) == ["fleet", "up"]
    assert fleet_arguments(["--help"]) == ["fleet", "--help"]
