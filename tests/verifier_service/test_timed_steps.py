"""How long a step of a device takes, which works by itself: whatever the rule, and whatever else it had to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from dragoman import Client, Rule, SamplingParams
from tests.support.service_drivers import serving
from tests.support.text_engine import TextEngine

#: Of the device.
STEP, PROMPT = 0.02, 0.2


class Device:
    """Does what it was given in that order; is free at this time."""

    free_at = 0.0

    def give(self, seconds: float) -> None:
        """Returns at once."""
        self.free_at = max(time.perf_counter(), self.free_at) + seconds

    def wait(self) -> None:
        """Until it is free."""
        time.sleep(max(0.0, self.free_at - time.perf_counter()))


DEVICE = Device()


class OnDevice(torch.Tensor):
    """Who asks for a value waits."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = super().__torch_function__(func, types, args, kwargs or {})
        if not isinstance(found, torch.Tensor | torch.Size | torch.device | torch.dtype):
            DEVICE.wait()
        return found


class DeviceEngine(TextEngine):
    """Steps and prompts go to a device, and the caller goes on."""

    def __init__(self) -> None:
        super().__init__(rows=16)

    def prefill(self, slots: Sequence[Any]) -> None:
        """Longer than steps."""
        DEVICE.give(PROMPT)

    def step(self, batch: Sequence[tuple[Any, Any]]) -> list[torch.Tensor]:
        """Its logits are there before their values."""
        DEVICE.give(STEP)
        return [logits.as_subclass(OnDevice) for logits in super().step(batch)]


async def step_seconds(rule: Rule, *, prompts: bool) -> float:
    """What the verifier takes a step for, once a text is written; with other prompts in between, or alone."""
    async with serving(DeviceEngine()) as (verifier, address), Client(address) as client:
        sampling = SamplingParams(temperature=1.0, seed=1)
        asked: dict[str, Any] = {"rule": rule, "sampling": sampling, "ignore_end": True}
        writing = asyncio.create_task(client.complete("a story: ", max_tokens=40, **asked))
        costs = None
        while not writing.done():
            if prompts:
                await client.complete("once ", max_tokens=1, **asked)
            await asyncio.sleep(0.01)
            for opened in verifier.sessions:
                costs = opened.planner.step_costs() or costs
        await writing
    assert costs is not None
    return costs.step


@pytest.mark.parametrize("rule", [Rule.REJECTION, Rule.RACE])
async def test_a_step_takes_as_long_as_the_device_works_at_it(rule: Rule):
    """Also where its rows are not drawn there, so that nothing is waited for before it is verified."""
    assert await step_seconds(rule, prompts=False) > 0.9 * STEP


async def test_a_prompt_is_not_charged_to_the_step_behind_it():
    assert await step_seconds(Rule.RACE, prompts=True) < STEP + PROMPT / 2
