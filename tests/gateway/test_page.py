"""The page, driven in a real browser against a real gateway: what it writes, how it is used, what it never does."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from drafter_service.fleet_member import DrafterMember
from dragoman.gateway_backend import verifier_backend
from tests.support.browsers import PHONE, Visit, axe_script, violations, visiting, why_not
from tests.support.certificates import TestAuthority
from tests.support.coordinators import running
from tests.support.gateways import Front, fleet_front, front, gateway_to, joined, registered
from tests.support.service_drivers import QUICK, WAITING, drafting, eventually, serving
from tests.support.text_engine import TextDrafter, TextEngine
from tests.support.text_models import STORY, TARGET_VOCAB, TextModel
from transport.identity import Identity, Role
from transport.tokens import new_token

pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")]

PROMPT = "a story: "
#: Draws that differ between target and drafter often enough.
WARM = {"temperature": "0.8", "seed": "9", "max_tokens": "80"}
LONG = {"temperature": "0.8", "seed": "9", "max_tokens": "2000"}


@pytest.fixture
async def fronted() -> AsyncIterator[Front]:
    """A gateway, a verifier whose steps take a moment and whose texts do not end soon, and a drafter.

    It is waited for: a browser runs beside it.
    """
    engine = TextEngine(step_seconds=0.005)
    engine.model = TextModel(TARGET_VOCAB, salt=1, story=STORY * 40)
    async with front(engine, plan=WAITING, adaptive=False) as found, drafting(found.verifier_address, TextDrafter()):
        await eventually(lambda: len(found.verifier.describe().drafters) == 1)
        yield found


async def write(visit: Visit, **settings: str) -> None:
    """A text to its end."""
    await visit.set(**{**WARM, **settings})
    await visit.page.get_by_label("Text to continue").fill(PROMPT)
    await visit.page.get_by_role("button", name="Write").click()
    await visit.written()


async def test_the_text_is_the_apis_and_tells_who_wrote_it(fronted: Front):
    async with visiting(fronted.url) as visit:
        await write(visit)
        asked = {"prompt": PROMPT, "temperature": 0.8, "seed": 9, "max_tokens": 80, "ignore_eos": False}
        plain = (await fronted.complete(**asked))["choices"][0]["text"]
        assert plain and await visit.text() == await visit.spoken() == plain
        drafted, own, rejected = [await visit.text(kind) for kind in ("drafter", "own", "rejected")]
        assert drafted and own and rejected
        looks = await visit.page.evaluate(
            """() => Object.fromEntries(["drafter", "lookup", "own", "rejected"].map((kind) =>
                [kind, getComputedStyle(document.querySelector(`.legend .${kind}`)).textDecorationLine
                    + getComputedStyle(document.querySelector(`.legend .${kind}`)).textDecorationStyle]))"""
        )
        assert len(set(looks.values())) == 4  # told apart without any colour
        await visit.page.get_by_label("show rejected").uncheck()
        assert not await visit.page.locator("#lane-drafted .rejected").first.is_visible()


async def test_the_figures_are_those_of_the_text(fronted: Front):
    async with visiting(fronted.url) as visit:
        await write(visit)
        tokens = await visit.page.get_by_role("img", name="Tokens per step").get_attribute("aria-label")
        tally = await visit.page.locator("#lane-drafted .tally").text_content()
        assert tokens is not None and tally is not None
        (mean,) = re.findall(r"([\d.]+) on average", tokens)
        assert f"{mean} per step" in tally
        assert await visit.page.locator("#plot-acceptance .filled").count() > 0
        plan = await visit.page.locator("#plot-plan svg").get_attribute("aria-label")
        trip = await visit.page.locator("#plot-trip svg").get_attribute("aria-label")
        assert plan is not None and trip is not None and re.search(r"\d+ drafts a step", plan)
        assert re.search(r"nearest drafter: [\d.]+ m?s", trip)


async def test_stop_ends_the_text_here_and_at_the_verifier(fronted: Front):
    async with visiting(fronted.url) as visit:
        await visit.set(**LONG)
        await visit.page.get_by_label("Text to continue").fill(PROMPT)
        await visit.page.get_by_role("button", name="Write").click()
        await visit.page.locator("#lane-drafted .text .own").first.wait_for()
        await visit.page.get_by_role("button", name="Stop").click()
        await visit.written()
        assert await visit.page.get_by_role("status").first.text_content() == "Stopped."
        await eventually(lambda: not fronted.verifier.sessions)
        assert await visit.text() == await visit.spoken() != ""


@pytest.mark.parametrize("order", ["turns", "together"])
async def test_with_and_without_drafter_side_by_side(fronted: Front, order: str):
    async with visiting(fronted.url) as visit:
        await visit.page.get_by_label("Compare with no drafter").select_option(order)
        await write(visit)
        assert await visit.text() == await visit.text(lane="alone") != ""
        assert await visit.text("drafter") and not await visit.text("drafter", lane="alone")
        said = await visit.page.locator("#verdict").text_content()
        assert said is not None and said.startswith("Both texts are the same. With drafters it was")
        clocks = await visit.page.get_by_role("timer").all_text_contents()
        assert all(float(clock.removesuffix(" s")) > 0 for clock in clocks) and len(clocks) == 2


async def test_a_conversation_goes_on(fronted: Front):
    async with visiting(fronted.url) as visit:
        await visit.page.get_by_role("radio", name="Chat").check()
        await visit.set(max_tokens="12", seed="3", system="be brief")
        answers = []
        for question in ("who sat?", "and where?"):
            await visit.page.get_by_label("Your message").fill(question)
            await visit.page.get_by_role("button", name="Write").click()
            await visit.page.get_by_text(question, exact=True).wait_for()
            await visit.written()
            answers.append(await visit.text())
        messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "who sat?"}]
        messages += [{"role": "assistant", "content": answers[0]}, {"role": "user", "content": "and where?"}]
        body = {"messages": messages, "max_tokens": 12, "seed": 3, "temperature": 0}
        told = (await fronted.post("/v1/chat/completions", **body)).json()
        assert told["choices"][0]["message"]["content"] == answers[1]
        await visit.page.get_by_role("button", name="New conversation").click()
        assert not await visit.page.locator("#turns").is_visible()


async def test_by_keyboard_alone(fronted: Front):
    async with visiting(fronted.url, motion="reduce") as visit:
        press = visit.page.keyboard.press
        await press("Tab")
        assert await visit.page.evaluate("document.activeElement.className") == "skip"
        await press("Enter")
        assert await visit.page.evaluate("document.activeElement.id") == "prompt"
        await press("Control+A")
        await visit.page.keyboard.type(PROMPT)
        await press("Control+Enter")
        await visit.written()
        assert await visit.text()
        reached = set()
        for _ in range(16):
            await press("Tab")
            reached.add(await visit.page.evaluate("document.activeElement.id || document.activeElement.localName"))
            outline = await visit.page.evaluate(
                """() => {
                    const here = document.activeElement;
                    const seen = here.type === "radio" ? here.nextElementSibling : here;
                    return here === document.body ? "the browser's own" : getComputedStyle(seen).outlineStyle;
                }"""
            )
            assert outline != "none", reached
        assert {"write", "compare", "show-rejected", "summary"} <= reached
        await visit.set(**LONG)
        await visit.page.get_by_role("button", name="Write").focus()
        await press("Enter")
        assert await visit.page.evaluate("document.activeElement.id") == "stop"
        await press("Escape")
        await visit.written()
        assert await visit.page.evaluate("document.activeElement.id") == "write"


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing(fronted: Front, scheme: str, tmp_path: Path):
    axe = axe_script(tmp_path)
    async with visiting(fronted.url, scheme=scheme) as visit:
        assert await violations(visit.page, axe) == []
        await visit.page.get_by_label("Compare with no drafter").select_option("turns")
        await write(visit)
        for summary in await visit.page.locator("#settings:not([open]) summary, .fleet summary").all():
            await summary.click()
        await visit.page.get_by_role("table", name="Drafters").wait_for()
        assert await violations(visit.page, axe) == []


async def test_on_a_phone_nothing_is_wider_than_the_screen(fronted: Front):
    async with visiting(fronted.url, size=PHONE) as visit:
        await visit.page.get_by_label("Compare with no drafter").select_option("turns")
        await write(visit)
        await visit.page.locator(".fleet summary").click()
        assert await visit.page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
        for button in await visit.page.get_by_role("button").all():
            box = await button.bounding_box()
            assert box is None or box["height"] >= 36


async def test_what_a_model_writes_never_becomes_markup():
    evil = '<img src=x onerror="document.title=1"><script>document.title=1</script> end '
    engine = TextEngine()
    engine.model = TextModel(TARGET_VOCAB, salt=1, story=evil)
    engine.name = '<img src=x onerror="document.title=2">'
    async with front(engine) as fronted, visiting(fronted.url) as visit:
        await write(visit, temperature="0", max_tokens="60")
        assert "<img src=x onerror" in await visit.text() and "<script>" in await visit.spoken()
        await visit.page.locator(".fleet summary").click()
        await visit.page.get_by_role("rowheader", name=engine.name).wait_for()
        assert await visit.page.locator("img, main script").count() == 0
        assert await visit.page.title() == "Dragoman"


async def test_a_key_is_asked_for_and_a_wrong_one_is_told(tmp_path: Path):
    ours = TestAuthority(tmp_path / "ours")
    secret, token = new_token(Identity(Role.CLIENT, "anna"))
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{token.line}\n")
    security = ours.one_way().model_copy(update={"tokens": str(tokens)})
    async with (
        serving(TextEngine()) as (_, at),
        verifier_backend(at) as backend,
        gateway_to(backend, security=security) as (_, address),
        visiting(f"https://localhost:{address.port}") as visit,
    ):
        given = visit.page.get_by_label("API key", exact=True)
        for key, told in ((None, "Give the key"), ("wrong", "This key does not do: ")):
            if key is not None:
                await given.fill(key)
                await visit.page.get_by_role("button", name="Use this key").click()
            await visit.page.get_by_role("alert").filter(has_text=told).wait_for()
        await given.fill(secret)
        await visit.page.get_by_role("button", name="Use this key").click()
        await given.wait_for(state="hidden")
        await write(visit)
        assert await visit.text()
        assert await visit.page.evaluate("localStorage.length") == 0
        # Browsers note every answer of 401; nothing else was said.
        visit.complaints = [line for line in visit.complaints if "401" not in line]


async def test_a_refusal_is_told_in_the_gateways_words(fronted: Front):
    async with visiting(fronted.url) as visit:
        await visit.page.get_by_label("Text to continue").fill("x" * 5000)
        await visit.page.get_by_role("button", name="Write").click()
        await visit.page.get_by_role("alert").filter(has_text="is longer than the model's context length of").wait_for()
        await visit.written()
        visit.complaints = [line for line in visit.complaints if "400" not in line]


async def test_the_map_shows_who_drafts_for_whom():
    async with (
        fleet_front() as (server, at, http, _),
        joined(at, TextEngine(), "east"),
        joined(at, TextEngine(), "west"),
        running(DrafterMember(TextDrafter(), at, instance="d", name="edge", backoff=QUICK)),
        visiting(str(http.base_url)) as visit,
    ):
        await registered(server, 2)
        await visit.page.get_by_role("img", name="edge drafts for east and west").wait_for()
        assert await visit.page.locator(".map .target").count() == 2
