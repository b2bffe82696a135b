"""Standard output as a person meets it: full disks, readers that leave, encodings that lack characters, errors in the
middle of a text. Real processes; the verifier is in this one."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from dragoman.client import Client
from speculation.errors import SessionError
from speculation.protocol.messages import Prompt
from speculation.sampling.params import SamplingParams
from tests.support.commands import hearing_signals
from tests.support.service_drivers import PATIENCE, serving
from tests.support.text_engine import TextEngine
from tests.support.text_models import STORY, TARGET_VOCAB, TextModel
from transport.address import Address

pytestmark = pytest.mark.process

ASK = ("--prompt=a story: ", "--temperature=1", "--seed=0", "--no-draft")
#: As C and POSIX are without Python's help.
BARE_C = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
ENCODINGS: dict[str, dict[str, str]] = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "LC_ALL=C": BARE_C,
    "utf-8": {"PYTHONIOENCODING": "utf-8"},
}


def run(*arguments: str, environment: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess:
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    if "input" in options:
        del pipes["stdin"]
    env = {**os.environ, "COLUMNS": "120", **(environment or {})}
    return subprocess.run(hearing_signals(*arguments), timeout=120, check=False, env=env, **{**pipes, **options})


async def expected(address: Address, max_tokens: int) -> bytes:
    async with Client(address) as client:
        sampling = SamplingParams(temperature=1.0, seed=0)
        text = await client.complete(Prompt(text="a story: "), sampling=sampling, max_tokens=max_tokens, draft=False)
    return text.data


@pytest.mark.parametrize("environment", ENCODINGS.values(), ids=ENCODINGS.keys())
async def test_a_pipe_gets_the_bytes_of_the_text_in_any_locale(environment: dict[str, str]):
    async with serving(TextEngine()) as (_, address):
        text = await expected(address, 40)
        assert "🐶".encode() in text and b"\xb8" in text, "characters that ASCII lacks, and bytes that are none"
        asked = ("generate", f"--verifier={address}", *ASK, "--max-tokens=40")
        done = await asyncio.to_thread(run, *asked, environment=environment)
        chat = ("chat", f"--verifier={address}", "--temperature=1", "--max-tokens=40", "--no-draft")
        talked = await asyncio.to_thread(run, *chat, environment=environment, input=b"a\n/exit\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout == text + b"\n"
    assert talked.returncode == 0 and b"Traceback" not in talked.stderr, talked.stderr
    assert not talked.stdout.isascii()


async def test_a_terminal_that_cannot_show_a_character_gets_another():
    async with serving(TextEngine()) as (_, address):
        asked = ("generate", f"--verifier={address}", *ASK, "--max-tokens=40")
        ours, theirs = os.openpty()
        environment = {"PYTHONIOENCODING": "ascii", "TERM": "xterm-256color"}
        done = await asyncio.to_thread(run, *asked, environment=environment, stdout=theirs)
        os.close(theirs)
        shown = re.sub(rb"\x1b\[[0-9;]*m", b"", os.read(ours, 1 << 16))
        os.close(ours)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    assert shown.isascii() and b"the dog" in shown and b"?" in shown


COMMANDS: dict[str, Callable[[Address], tuple[str, ...]]] = {
    "generate": lambda address: ("generate", f"--verifier={address}", *ASK, "--max-tokens=40"),
    "generate --json": lambda address: ("generate", f"--verifier={address}", *ASK, "--max-tokens=40", "--json"),
    "chat": lambda address: ("chat", f"--verifier={address}", "--max-tokens=40"),
    "models list": lambda address: ("models", "list"),
    "--help": lambda address: ("--help",),
}


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_full_disk_is_one_clear_line(command: str):
    async with serving(TextEngine()) as (_, address):
        with open("/dev/full", "wb") as full:
            words = b"a\nb\n/exit\n"
            done = await asyncio.to_thread(run, *COMMANDS[command](address), stdout=full, input=words)
    assert done.returncode == 1
    assert done.stderr.count(b"error: standard output cannot be written to: No space left on device\n") == 1
    assert b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr


async def test_a_reader_that_leaves_ends_the_command_without_a_word():
    engine = TextEngine(step_seconds=0.01)
    engine.model = TextModel(TARGET_VOCAB, salt=1, story=STORY * 40)
    async with serving(engine) as (verifier, address):
        options = ("generate", f"--verifier={address}", *ASK, "--max-tokens=3000")
        process = await asyncio.create_subprocess_exec(
            *hearing_signals(*options), stdout=(pipe := os.pipe())[1], stderr=asyncio.subprocess.PIPE
        )
        os.close(pipe[1])
        assert await asyncio.to_thread(os.read, pipe[0], 1)
        os.close(pipe[0])
        _, errors = await asyncio.wait_for(process.communicate(), 120)
        assert process.returncode == 141 and not errors
        async with asyncio.timeout(PATIENCE):
            while verifier.sessions:
                await asyncio.sleep(0.01)


async def test_an_error_in_the_middle_of_a_text_begins_a_line(monkeypatch: pytest.MonkeyPatch):
    engine = TextEngine()
    good, steps = engine.model.logits, 0

    def fail(ids: list[int]) -> object:
        nonlocal steps
        steps += 1
        if steps > 5:
            raise SessionError("the engine broke")
        return good(ids)

    monkeypatch.setattr(engine.model, "logits", fail)
    async with serving(engine, lookup=False) as (_, address):
        commands = {
            "generate": ("generate", f"--verifier={address}", *ASK, "--resume-for=0s"),
            "chat": ("chat", f"--verifier={address}", "--temperature=1", "--no-draft", "--resume-for=0s"),
        }
        for name, command in commands.items():
            steps = 0
            done = await asyncio.to_thread(run, *command, input=b"a\n", stderr=subprocess.STDOUT)
            lines = done.stdout.split(b"\n")
            errors = [number for number, line in enumerate(lines) if line.startswith(b"error: ")]
            assert len(errors) == 1 and done.stdout.count(b"error: ") == 1, (name, done.stdout)
            assert lines[errors[0] - 1] and b"the engine broke" in lines[errors[0]], (name, done.stdout)
