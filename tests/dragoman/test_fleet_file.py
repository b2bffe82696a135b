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
from dragoman.ray_fleet.config import DrafterGroup, FleetFile, FleetSecurity, Target, read_fleet
from dragoman.ray_fleet.gateway_group import TOKENS_VARIABLE, GatewayGroup
from dragoman.ray_fleet.labels import fulfils, label_sets
from dragoman.ray_fleet.standing import Standing
from speculation.errors import InputError
from speculation.planning.plan import START
from transport.address import Address
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
    assert set(written["gateway"]) == set(GatewayGroup.model_fields) and fleet.gateway == GatewayGroup()
    defaults = FleetFile(targets=[Target(name="a", model="m")])
    assert defaults.gateway is None, "files from before there was one bring none up"
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
        (TARGET + "    num_gpus: 1.5\n", ["line 4", "targets.0.num_gpus=1.5", "whole number"]),
        (
            TARGET + "    num_gpus: 1\n    tensor_parallel: 2\n",
            ["line 5", "targets.0.tensor_parallel=2", "is not its num_gpus, 1", "num_gpus: 2"],
        ),
        (TARGET + "    num_gpus: 2\n", ["line 4", "targets.0.num_gpus=2", "on one GPU", "tensor_parallel"]),
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
        (TARGET + "security:\n  tokens: /t\n", ["line 5", "security.tokens='/t'", "certificates", "gateway.tokens"]),
        (TARGET + "gateway:\n  replcas: 2\n", ["line 5", "gateway.replcas=2", "did you mean replicas?"]),
        (TARGET + "gateway:\n  replicas: -1\n", ["line 5", "gateway.replicas=-1", "greater than or equal to 0"]),
        (TARGET + "gateway:\n  host: 0.0.0.0:80\n", ["line 5", "gateway.host='0.0.0.0:80'", "a setting of its own"]),
        (TARGET + "gateway:\n  port: 70000\n", ["line 5", "gateway.port=70000", "less than or equal to 65535"]),
        (TARGET + "gateway:\n  port: 50060\n", ["line 5", "gateway.port=50060", "taken by coordinator"]),
        (TARGET + "    port: 8000\ngateway: {}\n", ["line 4", "targets.0.port=8000", "taken by gateway"]),
        (
            TARGET + "gateway:\n  metrics_port: 7999\n  replicas: 2\n",
            ["line 5", "gateway.metrics_port=7999", "port 8000 is taken by gateway"],
        ),
        (
            TARGET + "gateway:\n  metrics_port: 65535\n  replicas: 2\n",
            ["line 5", "gateway.metrics_port=65535", "beyond 65535"],
        ),
        (TARGET + "gateway:\n  max_queue: many\n", ["line 5", "gateway.max_queue='many'", "valid integer"]),
        (TARGET + "gateway:\n  grace: long\n", ["line 5", "gateway.grace='long'"]),
        (TARGET + "gateway:\n  tokens: tokens\n", ["line 5", "gateway.tokens='tokens'", "absolute path"]),
        (TARGET + "gateway:\n  tokens: /tokens\n", ["line 5", "gateway.tokens='/tokens'", "without TLS", "tls_cert"]),
        (TARGET + "gateway:\n  tls_key: /key\n", ["line 5", "gateway.tls_key='/key'", "without tls_cert"]),
        (TARGET + "gateway: 8000\n", ["line 4", "gateway=8000", "settings of its own"]),
        (
            TARGET + "gateway: {}\ndrafters:\n  - name: gateway\n    model: m\n",
            ["line 6", "drafters.0.name='gateway'", "another group"],
        ),
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


def test_a_gateway_without_replicas_takes_no_port(tmp_path: Path):
    fleet = read(tmp_path, TARGET + "    port: 8000\ngateway:\n  replicas: 0\n")
    assert fleet.gateway is not None and [place.name for place in fleet.places] == ["coordinator", "a"]
    assert read(tmp_path, TARGET + "gateway:\n").gateway is None


def test_what_a_gateways_replicas_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(TOKENS_VARIABLE, raising=False)
    text = TARGET + "gateway: {port: 80, metrics_port: 9000, host: '::', max_queue: 7, grace: 5s, page: false}\n"
    gateway = read(tmp_path, text).gateway
    assert gateway is not None
    settings, ports = gateway.settings_of(2), gateway.ports_of(2)
    assert (settings.max_queue, settings.grace, settings.page) == (7, 5.0, False)
    assert (ports.port, ports.listen_host, ports.metrics_port) == (80, "::", 9002)
    assert gateway.serving(Security(allow_plaintext=True)) == Security(allow_plaintext=True)


def test_a_gateways_keys_and_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of its own, or those of the fleet; keys by a file's name in the file or in the environment."""
    monkeypatch.delenv(TOKENS_VARIABLE, raising=False)
    https = "gateway: {tls_cert: /g.pem, tls_key: /g.key, tokens: /tokens}\n"
    own = read(tmp_path, TARGET + https)
    assert own.gateway is not None
    serving = own.gateway.serving(own.security.of_role(Role.CLIENT))
    assert (serving.tls_cert, serving.tls_key, serving.tokens, serving.tls_ca) == ("/g.pem", "/g.key", "/tokens", None)
    files = "security: {tls_cert: '/{role}.pem', tls_key: '/{role}.key', tls_ca: /ca.pem, tls_revoked: /revoked}\n"
    fleet = read(tmp_path, TARGET + files + "gateway: {}\n")
    assert fleet.gateway is not None
    serving = fleet.gateway.serving(fleet.security.of_role(Role.CLIENT))
    assert serving.tls_cert == "/client.pem" and serving.asks_for_certificates and serving.tls_revoked == "/revoked"
    monkeypatch.setenv(TOKENS_VARIABLE, "keys")
    serving = fleet.gateway.serving(fleet.security.of_role(Role.CLIENT))
    assert serving.tokens == str(Path("keys").absolute()) and not serving.asks_for_certificates
    serving.check_listening(Address("0.0.0.0", 8000))
    with pytest.raises(InputError, match=TOKENS_VARIABLE):
        read(tmp_path, TARGET + "gateway: {}\n")


def test_what_up_says_of_getting_text_works_as_printed():
    """From another machine too, where plaintext has to be asked for."""
    facts = {"kind": "coordinator", "outcome": Outcome.ANSWERED}
    for address, security, words in (
        ("127.0.0.1:50060", Security(allow_plaintext=True), "--coordinator 127.0.0.1:50060 --prompt"),
        ("192.0.2.2:50060", Security(allow_plaintext=True), "--coordinator 192.0.2.2:50060 --allow-plaintext --prompt"),
        ("192.0.2.2:50060", Security(tls_cert="c", tls_key="k", tls_ca="a"), "--tls-ca CA --tls-cert CERT"),
    ):
        fleet = FleetFile(targets=[Target(name="a", model="m")])
        fleet = fleet.model_copy(update={"security": FleetSecurity(**security.model_dump())})
        said = how_to_get_text([Standing("coordinator", facts={"address": address}, **facts)], fleet)
        assert words in said
        for line in said.splitlines():
            if "dragoman " in line:
                parse(shlex.split(line.partition("dragoman ")[2]))


def test_up_says_where_the_gateway_is_once_for_all_that_share_it():
    coordinator = Standing("coordinator", "coordinator", Outcome.ANSWERED, {"address": "127.0.0.1:50060"})
    gateway = GatewayGroup(tls_cert="/g.pem", tls_key="/g.key", tokens="/tokens", replicas=3)
    fleet = FleetFile(targets=[Target(name="a", model="m")], gateway=gateway)
    urls = ["https://10.0.0.1:8000", "https://10.0.0.1:8000", "https://10.0.0.2:8000"]
    found = [Standing(f"gateway/{n}", "gateway", Outcome.ANSWERED, {"url": url}) for n, url in enumerate(urls)]
    said = how_to_get_text([coordinator, *found], fleet)
    for url in urls:
        assert said.count(f"gateway at {url}/v1\n") == 1 and f"curl {url}/v1/completions" in said
    assert "Bearer KEY" in said
    assert "gateway at" not in how_to_get_text([coordinator], fleet.model_copy(update={"gateway": None}))


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
