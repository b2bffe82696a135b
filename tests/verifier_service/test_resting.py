"""A drafter on the target's own processors: all sessions rest for some steps, and what drafting costs is seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from speculation.planning import step_times
from speculation.protocol.messages import SessionOffer
from speculation.sessions.drafter_session import DraftToken
from tests.support.service_drivers import WARM, drafters, drafting, eventually, request, serving, text_of
from tests.support.text_engine import TextDrafter, TextEngine
from tests.support.text_models import TextModelSource
from verifier_service.verifier import Verifier

#: Seconds of a step alone and of one beside a drafter, and in how many steps the drafter is felt.
ALONE, BESIDE, FELT = 0.02, 0.06, 2
REST_AFTER = 12


class Processor:
    """That target and drafter share."""

    steps = 0
    drafted_in = -FELT - 1


class SlowedEngine(TextEngine):
    """Three times as slow while the drafter works."""

    def __init__(self, processor: Processor) -> None:
        super().__init__()
        self._processor = processor

    def step(self, batch: Sequence[tuple[Any, Any]]) -> list[Any]:
        """One step, as long as the drafter has it."""
        processor = self._processor
        processor.steps += 1
        self.step_seconds = BESIDE if processor.steps - processor.drafted_in <= FELT else ALONE
        return super().step(batch)


class BusySource(TextModelSource):
    """Uses the processor for each draft."""

    processor: Processor

    def expand(self, paths: Sequence[tuple[int, ...]], *, zero_width: int, choices: int) -> list[list[DraftToken]]:
        """As any source."""
        self.processor.drafted_in = self.processor.steps
        return super().expand(paths, zero_width=zero_width, choices=choices)


class BusyDrafter(TextDrafter):
    """Of the same processor."""

    def __init__(self, processor: Processor) -> None:
        super().__init__()
        self._processor = processor

    def open(self, offer: SessionOffer) -> TextModelSource:
        """A source for the session."""
        source = BusySource(self.model, offer)
        source.processor = self._processor
        return source


def alone_shares(verifier: Verifier) -> list[float]:
    """What the coordinator would be told of each session that runs."""
    return [costs.alone_share for opened in verifier.sessions if (costs := opened.planner.step_costs()) is not None]


@pytest.fixture(autouse=True)
def _early_rests(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(step_times, "FIRST_REST", REST_AFTER)
    monkeypatch.setattr(step_times, "REST_EVERY", 10_000)


async def test_what_a_drafter_costs_the_target_is_found_out_in_a_rest():
    """The drafter is told to rest and to go on again, the text is that of the target alone, nothing stays."""
    processor, shares = Processor(), []
    asked = request(WARM, max_tokens=160, ignore_end=True)
    async with serving(TextEngine()) as (_, address):
        alone, _ = await text_of(address, asked)
    engine = SlowedEngine(processor)
    async with serving(engine) as (verifier, address), drafting(address, BusyDrafter(processor)):
        await drafters(verifier, 1)

        async def note(_: bytes) -> None:
            shares.extend(alone_shares(verifier))

        text, finished = await text_of(address, asked, note)
        assert text == alone
        await eventually(lambda: engine.open_slots == 0)
    widths = [change.plan.width for change in finished.speculation.plans]
    assert shares[0] == 1.0 and step_times.LEAST_ALONE_SHARE <= shares[-1] < 0.93
    assert 0 in widths, "it rested"
    assert any(widths[widths.index(0) :]), "and went on"
    assert finished.speculation.accepted_tokens > 0 and shares == sorted(shares, reverse=True)


async def test_with_a_plan_that_stands_nobody_rests():
    processor = Processor()
    async with (
        serving(SlowedEngine(processor), adaptive=False) as (verifier, address),
        drafting(address, BusyDrafter(processor)),
    ):
        await drafters(verifier, 1)
        _, finished = await text_of(address, request(WARM, max_tokens=60, ignore_end=True))
    assert [change.plan.width > 0 for change in finished.speculation.plans] == [True]
    assert finished.speculation.draft_tokens > 0
