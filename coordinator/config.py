"""Settings of the coordinator: ``coordinator.yaml`` says what each means. Times in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from speculation.protocol.messages import SpeculationPlan
from transport.address import COORDINATOR_PORT
from transport.settings import Settings, Share, read_settings

#: The commented file with the defaults.
EXAMPLE: Final = Path(__file__).with_name("coordinator.yaml")

Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]


class PlacementSettings(Settings):
    drafters_per_session: int = Field(default=1, ge=1, le=8)
    margin: Share = 0.15
    dwell_seconds: float = Field(default=3.0, ge=0, le=3600, allow_inf_nan=False)


class PlanLimitSettings(Settings):
    max_width: int = Field(default=16, ge=1, le=SpeculationPlan.MAX_TOKENS)
    max_lookahead: int = Field(default=32, ge=1, le=SpeculationPlan.MAX_TOKENS)
    max_alternatives: int = Field(default=3, ge=0, le=SpeculationPlan.MAX_ALTERNATIVES)
    margin: Share = 0.03


class RoutingSettings(Settings):
    load_bound: float = Field(default=1.25, ge=1, le=100, allow_inf_nan=False)


class HistorySettings(Settings):
    samples: int = Field(default=30, ge=1, le=1000)
    seconds: Seconds = 1.0


class CoordinatorConfig(Settings):
    listen: str = f"127.0.0.1:{COORDINATOR_PORT}"
    report_seconds: float = Field(default=0.25, ge=0.05, le=2, allow_inf_nan=False)
    plan_seconds: float = Field(default=0.25, ge=0.05, le=2, allow_inf_nan=False)
    missed_reports: int = Field(default=12, ge=2, le=10_000)
    max_members: int = Field(default=1000, ge=1, le=100_000)
    max_members_each: int = Field(default=500, ge=1, le=100_000)
    placement: PlacementSettings = PlacementSettings()
    plan: PlanLimitSettings = PlanLimitSettings()
    routing: RoutingSettings = RoutingSettings()
    history: HistorySettings = HistorySettings()

    @property
    def dead_after(self) -> float:
        """Seconds of silence."""
        return self.missed_reports * self.report_seconds


def read_config(path: Path) -> CoordinatorConfig:
    """Raises InputError, which names the line, the field, its value and what to write instead."""
    remedy = f"{EXAMPLE.name} in the package `coordinator` explains every setting"
    return read_settings(path, CoordinatorConfig, field="config", remedy=remedy)
