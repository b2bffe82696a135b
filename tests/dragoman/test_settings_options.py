"""One settings model per service: the command line and the fleet file have its fields, defaults and checks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from drafter_service.settings import DrafterSettings
from dragoman.commands.drafter import drafter
from dragoman.commands.gateway import gateway
from dragoman.commands.serve import serve
from dragoman.commands.verifier import verifier
from dragoman.gateway_options import http_limits
from dragoman.ray_fleet.config import DrafterGroup, Target
from dragoman.ray_fleet.gateway_group import GatewayGroup
from dragoman.settings_options import settings_from
from gateway.settings import GatewaySettings
from speculation.errors import InputError
from speculation.planning.plan import START
from speculation.protocol.messages import SpeculationPlan
from transport.settings import Settings
from verifier_service.settings import PlanSettings, VerifierSettings

EXAMPLE = Path(__file__).parents[2] / "deploy" / "fleet.yaml"
#: Written in another unit, or 0 where the model says None.
OTHERWISE = {"patience": 0, "threads": 0, "grace": "1s", "trusted_drafters": None}


def fields(model: type[Settings]) -> dict[str, object]:
    """Of the model and its sections, by name, with their defaults."""
    found: dict[str, object] = {}
    for name, field in model.model_fields.items():
        if name == "plan":
            found |= fields(PlanSettings)
        else:
            found[name] = field.default
    return found


@pytest.mark.parametrize("command, model", [(verifier, VerifierSettings), (drafter, DrafterSettings)])
def test_the_command_line_has_every_setting_with_its_default(command: Callable[..., None], model: type[Settings]):
    options = inspect.signature(command).parameters
    for name, default in fields(model).items():
        assert name in options, f"--{name} is missing"
        if name != "model":
            assert options[name].default == OTHERWISE.get(name, default), name


@pytest.mark.parametrize("command", [gateway, serve])
def test_what_serves_http_has_every_setting_of_a_gateway(command: Callable[..., None]):
    assert set(GatewaySettings.model_fields) <= set(inspect.signature(command).parameters)


def test_a_setting_that_is_a_list_is_an_option_that_may_be_repeated():
    taken: list[GatewaySettings] = []

    @http_limits
    def command(*, settings: GatewaySettings) -> None:
        taken.append(settings)

    app = typer.Typer()
    app.command()(command)
    for arguments in ([], ["--allowed-origins=https://a.example", "--allowed-origins=http://b.example:3000"]):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert [settings.allowed_origins for settings in taken] == [[], ["https://a.example", "http://b.example:3000"]]
    assert taken[0] == GatewaySettings()


@pytest.mark.parametrize(
    "group, model", [(Target, VerifierSettings), (DrafterGroup, DrafterSettings), (GatewayGroup, GatewaySettings)]
)
def test_the_fleet_file_has_every_setting_with_its_default(group: type[Settings], model: type[Settings]):
    for name, field in model.model_fields.items():
        assert group.model_fields[name].default == field.default, name
    kind = {Target: "targets", DrafterGroup: "drafters", GatewayGroup: "gateway"}[group]
    section = yaml.safe_load(EXAMPLE.read_text())[kind]
    (written,) = [section] if group is GatewayGroup else section
    assert set(written) == set(group.model_fields), "deploy/fleet.yaml explains every setting"
    for name, value in written.items():
        if name == "plan":
            assert value == PlanSettings().model_dump()
        elif name in model.model_fields and name != "model":
            assert value == model.model_fields[name].default, name


def test_what_the_file_says_reaches_the_actor():
    target = Target(name="t", model="m", lookup=False, grace=2, trust_remote_code=True, port=50070, num_gpus=1)
    assert target.settings_of(1) == VerifierSettings(model="m", lookup=False, grace=2.0, trust_remote_code=True)
    assert [target.port_of(number) for number in (0, 1)] == [50070, 50071] and Target(name="t", model="m").port_of(
        3
    ) == 0
    assert Target(name="t", model="m").settings_of(0).device == "cpu", (
        "Ray hides no GPUs from those that asked for none"
    )
    assert Target.model_validate({"name": "t", "model": "m", "grace": "1500ms"}).grace == 1.5


def test_plans_are_the_same_thing_as_settings():
    assert PlanSettings().plan() == SpeculationPlan(
        width=START.width,
        lookahead=START.lookahead,
        stop_threshold=START.stop_threshold,
        span_tokens=START.span_tokens,
        alternatives=START.alternatives,
        alternative_threshold=START.alternative_threshold,
        verify_threshold=START.verify_threshold,
    )
    plan = SpeculationPlan(width=3, lookahead=5, patience=0.25, top_k=7)
    assert PlanSettings.of(plan).plan() == plan


@pytest.mark.parametrize(
    "values, words",
    [
        ({"device": "tpu!"}, r"^device='tpu!': is no device"),
        ({"max_sessions": 0}, r"^max-sessions=0: input should be greater"),
        ({"kv_memory": "8 sheep"}, r"^kv-memory='8 sheep': is no amount of memory: give a number with a unit"),
        ({"grace": "soon"}, r"^grace='soon': is no duration: give a number of 0 or more with a unit"),
        ({"engine": "steam"}, r"^engine='steam': input should be 'auto'"),
        ({"colour": 1}, r"^colour=1: extra inputs are not permitted"),
    ],
)
def test_mistakes_name_the_option_and_the_value(values: dict[str, object], words: str):
    with pytest.raises(InputError, match=words):
        settings_from(VerifierSettings, model="m", **values)
