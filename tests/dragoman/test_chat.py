"""`dragoman chat` as a person uses it: on a terminal, with keys; and over a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dragoman.generate import read_prompt
from tests.support.service_drivers import baseline, eventually, serving
from tests.support.terminals import ALT_ENTER, CTRL_C, CTRL_D, ENTER, UP, Terminal, on_terminal
from tests.support.text_engine import TextEngine
from tests.support.text_models import STORY, TARGET_VOCAB, TextModel
from verifier_service.verifier import Verifier

pytestmark = pytest.mark.process


@contextlib.asynccontextmanager
async def chatting(
    *options: str, engine: TextEngine | None = None, home: Path
) -> AsyncIterator[tuple[Terminal, asyncio.subprocess.Process, Verifier]]:
    """A chat on a terminal with a verifier in this process."""
    engine = engine or TextEngine()
    async with serving(engine) as (verifier, address):
        arguments = ("chat", f"--verifier={address}", "--max-tokens=200", "--temperature=0", *options)
        async with on_terminal(*arguments, DRAGOMAN_HOME=str(home)) as (terminal, process):
            await terminal.shows("/help lists the commands")
            await terminal.until(lambda: terminal.text.endswith("\n>"))
            yield terminal, process, verifier
        await baseline(verifier, engine)


async def ended(process: asyncio.subprocess.Process) -> int:
    return await asyncio.wait_for(process.wait(), 120)


async def prompted(terminal: Terminal) -> None:
    """Before a control key: one that is typed ahead is taken by the terminal itself."""
    await terminal.until(lambda: terminal.text.endswith("\n>"))


async def test_ctrl_c_ends_the_answer_and_nothing_else(tmp_path: Path):
    engine = TextEngine(step_seconds=0.02)
    engine.model = TextModel(TARGET_VOCAB, salt=1, story=STORY * 40)  # which a busy machine is not through with
    async with chatting("--max-tokens=2000", engine=engine, home=tmp_path) as (terminal, process, verifier):
        terminal.type("tell me a story" + ENTER)
        await terminal.until(lambda: len(terminal.text.partition("tell me a story\n")[2]) > 10)
        terminal.type(CTRL_C)
        await terminal.shows("ended by Ctrl-C; what is shown stays in the conversation")
        await eventually(lambda: verifier.describe().sessions == 0)
        await prompted(terminal)
        terminal.type(f"/save {tmp_path}/talk.json{ENTER}")
        await terminal.shows("2 messages saved")
        await prompted(terminal)
        question, answer = json.loads((tmp_path / "talk.json").read_text())
        assert question == {"role": "user", "content": "tell me a story"}
        assert answer["role"] == "assistant" and answer["content"]
        assert answer["content"][:8] in terminal.text
        engine.step_seconds = 0.0
        terminal.type("go on" + ENTER)
        await terminal.shows("tokens/s")
        await prompted(terminal)
        terminal.type(CTRL_C)
        assert await ended(process) == 0


async def test_ctrl_c_before_any_text_drops_the_question(tmp_path: Path):
    engine = TextEngine()
    async with chatting(engine=engine, home=tmp_path) as (terminal, process, verifier):
        engine.gate.clear()
        try:
            terminal.type("tell me a story" + ENTER)
            await eventually(lambda: verifier.describe().sessions == 1)
            await terminal.shows("waiting for the first token · ")
            await terminal.shows(" tokens of prompt · ")
            terminal.type(CTRL_C)
            await terminal.shows("ended by Ctrl-C; the question is dropped")
            assert "waiting" not in terminal.text, "the line is erased"
        finally:
            engine.gate.set()
        await prompted(terminal)
        terminal.type(f"/save {tmp_path}/talk.json{ENTER}")
        await terminal.shows("0 messages saved")
        await prompted(terminal)
        terminal.type("/exit" + ENTER)
        assert await ended(process) == 0


async def test_ctrl_d_leaves_on_a_line_of_its_own(tmp_path: Path):
    async with chatting(home=tmp_path) as (terminal, process, _):
        terminal.type(CTRL_D)
        assert await ended(process) == 0
        await terminal.until(lambda: terminal.cursor.x == 0)


async def test_ctrl_c_drops_what_was_typed_and_leaves_at_an_empty_prompt(tmp_path: Path):
    async with chatting(home=tmp_path) as (terminal, process, _):
        terminal.type("never sent")
        await terminal.shows("> never sent")
        terminal.type(CTRL_C)
        await prompted(terminal)
        assert process.returncode is None
        terminal.type(CTRL_C)
        assert await ended(process) == 0


async def test_lines_are_edited_and_remembered(tmp_path: Path):
    for number in range(2):
        async with chatting("--max-tokens=3", home=tmp_path) as (terminal, process, _):
            if number == 0:
                terminal.type("hallo\x02\x02\x02\x02\x04e" + ENTER)  # four to the left, delete, another letter
                await terminal.shows("> hello")
            else:
                terminal.type(UP)
                await terminal.shows("> hello")
                terminal.type("!" + ENTER)
            await terminal.shows("tokens/s")
            await prompted(terminal)
            terminal.type(CTRL_D)
            assert await ended(process) == 0
    history = tmp_path / "chat_history"
    assert [line for line in history.read_text().splitlines() if line.startswith("+")] == ["+hello", "+hello!"]
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


async def test_a_text_of_several_lines(tmp_path: Path):
    async with chatting("--max-tokens=3", home=tmp_path) as (terminal, process, _):
        terminal.type(f"one{ALT_ENTER}two\\{ENTER}three")
        await terminal.shows("> one\n  two\n  three")
        terminal.type(ENTER)
        await terminal.shows("tokens/s")
        terminal.type(f"/save {tmp_path}/talk.json{ENTER}")
        await terminal.shows("2 messages saved")
        await prompted(terminal)
        assert json.loads((tmp_path / "talk.json").read_text())[0]["content"] == "one\ntwo\nthree"
        terminal.type(CTRL_D)
        assert await ended(process) == 0


@pytest.mark.parametrize("obstacle", ["--no-history", "a folder in its place", "a home that is a file"])
async def test_a_chat_without_its_history(tmp_path: Path, obstacle: str):
    home = tmp_path / "home"
    if obstacle == "a home that is a file":
        home.write_text("x")
    else:
        home.mkdir()
    if obstacle == "a folder in its place":
        (home / "chat_history").mkdir()
    options = [obstacle] if obstacle.startswith("--") else []
    async with chatting("--max-tokens=3", *options, home=home) as (terminal, process, _):
        terminal.type("hello" + ENTER)
        await terminal.shows("tokens/s")
        await prompted(terminal)
        terminal.type(UP)
        await terminal.until(lambda: terminal.text.count("> hello") == 2)
        terminal.type(CTRL_C)
        await prompted(terminal)
        terminal.type(CTRL_D)
        assert await ended(process) == 0
        assert "Traceback" not in terminal.text and "Exception" not in terminal.text
    assert not (home / "chat_history").is_file()


async def over_a_pipe(engine: TextEngine, lines: str | bytes, *options: str, **environment: str) -> tuple[str, str]:
    """Standard output and error of a chat that reads these lines; it must not have brought prompt_toolkit along."""
    code = (
        "import sys\nfrom dragoman.cli import main\ntry:\n main()\n"
        "finally:\n assert not [name for name in sys.modules if name.startswith('prompt_toolkit')]"
    )
    async with serving(engine) as (_, address):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, "chat", f"--verifier={address}", "--max-tokens=6", "--temperature=0", *options,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **environment},
        )  # fmt: skip
        given = lines.encode() if isinstance(lines, str) else lines
        out, errors = await asyncio.wait_for(process.communicate(given), 120)
    assert process.returncode == 0, errors.decode()
    return out.decode(), errors.decode()


async def test_what_comes_over_a_pipe_is_utf_8_whatever_the_locale(tmp_path: Path):
    talk = tmp_path / "talk.json"
    lines = "Grüße\n".encode() + b"caf\xe9\n" + f"/save {talk}\n".encode()
    out, errors = await over_a_pipe(TextEngine(), lines, PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", LC_ALL="C")
    assert len(out.splitlines()) == 1 and "error: line=" in errors and "is not UTF-8 at byte 3" in errors
    assert json.loads(talk.read_text())[0] == {"role": "user", "content": "Grüße"}


async def test_commands_over_a_pipe(tmp_path: Path):
    talk = tmp_path / "talk.json"
    lines = ["/system Be brief.", "hello", f"/save {talk}", "/reset", f"/save {talk}", f"/save {tmp_path}", "/help",
             "/hlep", "/usr/bin/env is what?", "//usr/bin/env is what?", "/system", f"/save {talk}", "/save", "/exit",
             "never read"]  # fmt: skip
    out, errors = await over_a_pipe(TextEngine(), "\n".join(lines))
    assert len(out.splitlines()) == 2, "two questions were asked"
    assert "error: command='/hlep': is none" in errors and "did you mean /help?" in errors
    assert "error: command='/usr/bin/env': is none" in errors and "begin with // to send it" in errors
    assert "3 messages saved" in errors and "1 message saved" in errors and "2 messages saved" in errors
    assert f"error: save='{tmp_path}': " in errors and "error: save: names no file" in errors
    assert "/system TEXT" in errors and "the system message is set" in errors and "no system message" in errors
    saved = json.loads(talk.read_text())
    assert saved == [
        {"role": "user", "content": "/usr/bin/env is what?"},
        {"role": "assistant", "content": out.splitlines()[1]},
    ]
    prompt = read_prompt(None, None, str(talk))
    assert [message.role for message in prompt.messages] == ["user", "assistant"]
    assert "waiting" not in errors and "\x1b" not in out + errors


async def test_a_file_of_somebody_else_is_not_overwritten(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    _, errors = await over_a_pipe(TextEngine(), f"hello\n/save {tmp_path}/mine.txt\n")
    assert "is there already" in errors and (tmp_path / "mine.txt").read_text() == "mine"
