"""Pictures of the gateway's page for docs/page.md: a text with drafters, on a desktop, in the dark and on a phone.

python -m benchmarks.pictures_of_page --folder docs
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.command import run_command
from benchmarks.ports import free_port
from dragoman.processes import child
from speculation.errors import InputError
from tests.support.browsers import DESKTOP, PHONE, Visit, visiting, why_not

PROMPT = '''def celsius_to_fahrenheit(c):
    """Degrees Celsius in degrees Fahrenheit."""
    return c * 9 / 5 + 32


def fahrenheit_to_celsius(f):
'''
TOKENS = 110
#: By the name of the file.
LOOKS: dict[str, dict[str, Any]] = {
    "page_desktop": {"size": DESKTOP},
    "page_dark": {"size": DESKTOP, "scheme": "dark"},
    "page_phone": {"size": PHONE},
}
#: Seconds until models are loaded, and converted where they were not yet.
PATIENCE = 600.0


@contextlib.asynccontextmanager
async def serving(target: str, drafters: list[str]) -> AsyncIterator[str]:
    """`dragoman serve`; the page's address."""
    address = f"127.0.0.1:{free_port()}"
    options = [f"--target={target}", f"--listen={address}", *(f"--drafter={drafter}" for drafter in drafters)]
    async with child("serve", ["serve", *options]) as served:
        await served.ready(limit=PATIENCE)
        yield f"http://{address}"


async def write(visit: Visit, drafters: int) -> None:
    """The text, to its end, once so many drafters are there."""
    await visit.page.locator(".map .helper").nth(drafters - 1).wait_for()
    await visit.set(max_tokens=str(TOKENS), temperature="0")
    await visit.page.locator("#settings").evaluate("element => { element.open = false; }")
    await visit.page.get_by_label("Text to continue").fill(PROMPT)
    await visit.page.get_by_role("button", name="Write").click()
    await visit.written()
    await visit.page.evaluate("() => document.activeElement.blur()")


async def draw(folder: Path, target: str, drafters: list[str]) -> None:
    """All of them, one after the other, of the same fleet."""
    async with serving(target, drafters) as url:
        for name, look in LOOKS.items():
            async with visiting(url, **look) as visit:
                visit.page.set_default_timeout(PATIENCE * 1000)
                await write(visit, len(drafters))
                await visit.page.screenshot(path=folder / f"{name}.png", full_page=True)


def main(
    folder: Annotated[Path, typer.Option(help="Where they go")] = Path("docs"),
    target: str = "gemma3-270m",
    drafter: Annotated[list[str] | None, typer.Option(help="May be repeated  [default: smollm2-135m, lookup]")] = None,
) -> None:
    """Draw them. Needs a Chromium."""
    if reason := why_not():
        raise InputError("browser", None, reason, remedy="install chromium-headless-shell")
    asyncio.run(draw(folder, target, drafter or ["smollm2-135m", "lookup"]))


if __name__ == "__main__":
    run_command(main)
