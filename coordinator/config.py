"""Settings of the coordinator: ``coordinator.yaml`` says what each means. Times in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from protos.transport import COORDINATOR_PORT
from speculation.errors import InputError
from speculation.messages import SpeculationPlan

#: The commented file with the defaults.
EXAMPLE: Final = Path(__file__).with_name("coordinator.yaml")

Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PlacementSettings(_Settings):
    drafters_per_session: int = Field(default=1, ge=1, le=8)
    margin: Share = 0.15
    dwell_seconds: float = Field(default=3.0, ge=0, le=3600, allow_inf_nan=False)


class PlanSettings(_Settings):
    max_width: int = Field(default=16, ge=1, le=SpeculationPlan.MAX_TOKENS)
    max_lookahead: int = Field(default=32, ge=1, le=SpeculationPlan.MAX_TOKENS)
    max_alternatives: int = Field(default=3, ge=0, le=SpeculationPlan.MAX_ALTERNATIVES)
    margin: Share = 0.03


class RoutingSettings(_Settings):
    load_bound: float = Field(default=1.25, ge=1, le=100, allow_inf_nan=False)


class HistorySettings(_Settings):
    samples: int = Field(default=30, ge=1, le=1000)
    seconds: Seconds = 1.0


class CoordinatorConfig(_Settings):
    listen: str = f"127.0.0.1:{COORDINATOR_PORT}"
    report_seconds: float = Field(default=0.25, ge=0.05, le=2, allow_inf_nan=False)
    plan_seconds: float = Field(default=0.25, ge=0.05, le=2, allow_inf_nan=False)
    missed_reports: int = Field(default=12, ge=2, le=10_000)
    max_members: int = Field(default=1000, ge=1, le=100_000)
    placement: PlacementSettings = PlacementSettings()
    plan: PlanSettings = PlanSettings()
    routing: RoutingSettings = RoutingSettings()
    history: HistorySettings = HistorySettings()

    @property
    def dead_after(self) -> float:
        """Seconds of silence."""
        return self.missed_reports * self.report_seconds


def read_config(path: Path) -> CoordinatorConfig:
    """Raises InputError, which names the line, the field, its value and what to write instead."""
    remedy = f"{EXAMPLE.name} in the package `coordinator` explains every setting"
    try:
        text = path.read_text("utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except OSError as error:
        raise InputError("config", str(path), f"cannot be read: {error.strerror}", remedy=remedy) from error
    except UnicodeDecodeError as error:
        raise InputError("config", str(path), f"is not UTF-8 at byte {error.start}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise InputError("config", str(path), f"is not YAML{where}: {problem}", remedy=remedy) from error
    if values is None:
        return CoordinatorConfig()
    if not isinstance(values, dict):
        raise InputError("config", str(path), "holds no settings", remedy="write `name: value` lines")
    try:
        return CoordinatorConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = [str(part) for part in first["loc"]]
        problem = f"{path}, line {_line(root, place)}: {_problem(first['type'], first['msg'])}"
        if first["type"] == "extra_forbidden":
            owner = _settings_at(place[:-1])
            remedy = f"one of {', '.join(owner.model_fields)}"
        raise InputError(".".join(place), first["input"], problem, remedy=remedy) from None


def _problem(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "no such setting"
    if kind == "model_type":
        return "has settings of its own, a line each below it"
    return message[:1].lower() + message[1:]


def _settings_at(place: list[str]) -> type[_Settings]:
    owner: type[_Settings] = CoordinatorConfig
    for part in place:
        inner = owner.model_fields[part].annotation
        assert isinstance(inner, type) and issubclass(inner, _Settings)
        owner = inner
    return owner


def _line(node: yaml.Node | None, place: list[str]) -> int:
    """Where the setting stands in the file, counted from 1; that of its section if it is not there itself."""
    line = 1
    for part in place:
        if not isinstance(node, yaml.MappingNode):
            break
        found = next(((key, value) for key, value in node.value if key.value == part), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line
