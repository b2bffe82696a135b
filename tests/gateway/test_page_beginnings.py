"""The page before there is anything to show, and what a screen reader and a clock do while a text is written."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.browsers import Visit, visiting, why_not
from tests.support.gateways import front
from tests.support.service_drivers import PATIENCE
from tests.support.text_engine import TextEngine
from tests.support.text_models import STORY, TARGET_VOCAB, TextModel

pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")]

LOADING: dict[str, Any] = {"error": {"message": "the model is still being loaded", "type": "server_error"}}


async def clock_of(visit: Visit) -> float:
    """Seconds that it shows."""
    return float((await visit.page.locator("#lane-drafted .clock").inner_text()).removesuffix(" s"))


async def test_a_model_that_was_still_being_loaded_is_found_once_it_is_there():
    async with front() as found, visiting(found.url) as visit:
        loading = True

        async def models(route: Any) -> None:
            await (route.fulfill(status=503, json=LOADING) if loading else route.continue_())

        await visit.page.route("**/v1/models", models)
        await visit.page.reload()
        await visit.page.get_by_text("the model is still being loaded").wait_for()
        assert await visit.page.locator("#model option").count() == 0
        loading = False
        await visit.page.locator("#model option").wait_for(state="attached")
        assert not await visit.page.locator("#problem").is_visible()
        await visit.set(max_tokens="3")
        await visit.page.get_by_label("Text to continue").fill("a story: ")
        await visit.page.get_by_role("button", name="Write").click()
        await visit.written()
        assert await visit.text()
        assert all("503" in complaint for complaint in visit.complaints)
        visit.complaints.clear()


async def test_a_screen_reader_hears_one_text_once():
    """The marked text is hidden from it; beside it stands the same without marks, of the first lane alone."""
    async with front() as found, visiting(found.url) as visit:
        await visit.page.get_by_label("Compare with no drafter").select_option("turns")
        marked = visit.page.locator(".lane .text")
        assert [await each.get_attribute("aria-hidden") for each in await marked.all()] == ["true", "true"]
        heard = await visit.page.locator(".lane [aria-live]").all()
        assert [await each.get_attribute("aria-live") for each in heard] == ["polite"]
        assert await heard[0].evaluate("element => element.closest('.lane').id") == "lane-drafted"


async def test_a_clock_runs_while_a_text_is_written_and_stands_afterwards():
    engine = TextEngine(step_seconds=0.01)
    engine.model = TextModel(TARGET_VOCAB, salt=1, story=STORY * 40)
    async with front(engine) as found, visiting(found.url) as visit:
        await visit.set(max_tokens="2000", seed="9", temperature="0.8")
        await visit.page.get_by_label("Text to continue").fill("a story: ")
        await visit.page.get_by_role("button", name="Write").click()
        async with asyncio.timeout(PATIENCE):
            while await clock_of(visit) <= 0.3:
                await asyncio.sleep(0.05)
        assert await visit.page.locator("#stop").is_enabled(), "it is still being written"
        await visit.page.get_by_role("button", name="Stop").click()
        await visit.written()
        stood = await clock_of(visit)
        await visit.page.wait_for_timeout(700)
        assert await clock_of(visit) == stood
