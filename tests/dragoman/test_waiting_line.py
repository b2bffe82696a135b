"""The line that a terminal shows until the first token: there in time, gone in time, and nowhere else."""

from __future__ import annotations

import asyncio
import io
import json
import re

import pytest
from rich.console import Console

from dragoman.waiting_line import WaitingLine
from speculation.protocol.generation import Chunk
from speculation.text.text_stream import TextRun
from tests.support.service_drivers import eventually, serving
from tests.support.terminals import on_terminal
from tests.support.text_engine import TextEngine

pytestmark = pytest.mark.process


async def test_a_terminal_shows_that_the_prompt_is_read_and_then_only_the_text():
    engine = TextEngine()
    engine.gate.clear()
    async with serving(engine) as (_, address):
        arguments = ("generate", f"--verifier={address}", "--prompt=a story: ", "--max-tokens=20")
        async with on_terminal(*arguments) as (terminal, process):
            await terminal.shows("waiting for the first token · ")
            await terminal.shows(" tokens of prompt · ")
            await terminal.until(lambda: re.search(r" · ([2-9]|\d\d+) s$", terminal.text))
            assert len(terminal.lines_shown) == 1
            engine.gate.set()
            assert await asyncio.wait_for(process.wait(), 120) == 0
            await terminal.shows("tokens/s")
            assert "waiting" not in terminal.text
            assert terminal.lines_shown[0].startswith("the cat"), terminal.text
            assert not terminal.cursor.hidden


async def test_json_is_not_disturbed():
    engine = TextEngine()
    engine.gate.clear()
    async with serving(engine) as (verifier, address):
        arguments = ("generate", f"--verifier={address}", "--prompt=a story: ", "--max-tokens=5", "--json")
        async with on_terminal(*arguments, columns=2000) as (terminal, process):
            await eventually(lambda: verifier.describe().sessions == 1)
            engine.gate.set()
            assert await asyncio.wait_for(process.wait(), 120) == 0
            await terminal.shows("}}")
            assert b"waiting" not in terminal.seen and b"\x1b" not in terminal.seen
            assert json.loads(terminal.text)["usage"]["completion_tokens"] == 5


@pytest.mark.parametrize("terminal, quiet, shown", [(True, False, True), (True, True, False), (False, False, False)])
async def test_only_a_terminal_that_is_not_told_to_be_quiet(terminal: bool, quiet: bool, shown: bool):
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=80, legacy_windows=False)
    texts: list[Chunk] = []
    async with WaitingLine(console, quiet=quiet, delay=0.0) as waiting:
        waiting.started(1)
        await asyncio.sleep(0.05)
        if shown:
            await eventually(lambda: "waiting for the first token · 1 token of prompt · " in file.getvalue())
        waiting.before(texts.append)(Chunk((TextRun(b"x", False),), (1,)))
        after = len(file.getvalue())
        await asyncio.sleep(0.05)
        assert len(file.getvalue()) == after and len(texts) == 1, "nothing more once the text begins"
    assert bool(file.getvalue()) is shown


async def test_a_text_that_begins_at_once_shows_none():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80, legacy_windows=False)
    async with WaitingLine(console, delay=100.0) as waiting:
        waiting.started(3001)
        waiting.before(lambda chunk: None)(Chunk((), (1,)))
    assert not file.getvalue()


def test_the_line_says_what_there_is_room_for():
    waiting = WaitingLine(Console())
    assert waiting.words(80).plain == "waiting for the verifier · 0 s"
    waiting.started(3001)
    assert waiting.words(80).plain == "waiting for the first token · 3,001 tokens of prompt · 0 s"
    assert waiting.words(40).plain == "waiting · 3,001 tokens · 0 s"
    assert waiting.words(20).plain == "0 s"
