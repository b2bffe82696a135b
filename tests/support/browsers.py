"""A real browser without a window, for tests of the page, and the rules of accessibility that it is checked by."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from playwright.async_api import Page

#: Names under which systems install Chromium, and the variable that names another one.
_NAMES: Final = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
VARIABLE: Final = "DRAGOMAN_BROWSER"
#: Deque's rules, from the npm registry. MPL-2.0.
_AXE: Final = "axe-core@4.14.1"
_AXE_SECONDS: Final = 60
DESKTOP, PHONE = (1280, 900), (390, 844)
#: Milliseconds that anything on the page may take, also while other processes keep every core busy.
PATIENCE: Final = 60_000.0


def chromium() -> str | None:
    """Where a Chromium is; None: nowhere."""
    named = os.environ.get(VARIABLE)
    if named:
        return named
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


def why_not() -> str:
    """Why no browser can be driven here; empty: one can."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed (the dev extra)"
    if chromium() is None:
        return f"no Chromium is installed, and {VARIABLE} names none"
    return ""


@dataclass
class Visit:
    """A page in a browser, and all that it complained of."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    async def set(self, **fields: str) -> None:
        """Settings, by the names of their fields."""
        await self.page.locator("#settings").evaluate("element => { element.open = true; }")
        for name, value in fields.items():
            control = self.page.locator(f"#composer [name={name}]")
            kind = await control.evaluate("element => element.localName")
            await (control.select_option(value) if kind == "select" else control.fill(value))

    async def written(self) -> None:
        """Until no text is written any more."""
        await self.page.locator("#write:enabled").wait_for()

    async def text(self, kind: str = "", lane: str = "drafted") -> str:
        """Of all pieces of the text of that kind: own, drafter, lookup, rejected; by default, all that count."""
        chosen = f".{kind}" if kind else "span:not(.prompt)"
        return "".join(await self.page.locator(f"#lane-{lane} .text {chosen}").all_text_contents())

    async def spoken(self, lane: str = "drafted") -> str:
        """What a screen reader is given."""
        return await self.page.locator(f"#lane-{lane} .spoken").text_content() or ""


@contextlib.asynccontextmanager
async def visiting(
    url: str, *, size: tuple[int, int] = DESKTOP, scheme: Any = "light", motion: Any = "no-preference"
) -> AsyncIterator[Visit]:
    """The page in a browser of its own. ``scheme``: "light" or "dark". Fails if the page complained of anything."""
    from playwright.async_api import async_playwright

    async with async_playwright() as driver:
        # As root, as in containers, Chromium has no sandbox; what it shows here is ours.
        browser = await driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        context = await browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,
            reduced_motion=motion,
            ignore_https_errors=True,  # of authorities that tests make
        )
        context.set_default_timeout(PATIENCE)
        visit = Visit(await context.new_page())
        visit.page.on("console", lambda message: visit.complaints.append(message.text))
        visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        await visit.page.goto(url)
        await visit.page.locator("#model option").or_(visit.page.locator("#key")).first.wait_for(state="attached")
        yield visit
        await browser.close()
    assert visit.complaints == []


def axe_script(folder: Path) -> str:
    """The source of axe-core, fetched into a folder. Skips the test where it cannot be had."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed, which brings axe-core")
    try:
        command = [npm, "pack", "--silent", _AXE]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=_AXE_SECONDS)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"npm does not bring {_AXE}: {error}")
    packed = io.BytesIO((folder / done.stdout.split()[-1]).read_bytes())
    with tarfile.open(fileobj=packed) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()


async def violations(page: Page, axe: str) -> list[str]:
    """What axe-core finds wrong with the page as it is now."""
    # Into the page from outside: its policy would let no such script in.
    await page.evaluate(axe)
    found = await page.evaluate("async () => (await window.axe.run(document)).violations")
    return [f"{each['id']}: {node['html']}: {node['failureSummary']}" for each in found for node in each["nodes"]]
