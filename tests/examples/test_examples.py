"""Every example runs, with tiny models in place of real ones, and says what its text promises."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.service_drivers import serving
from tests.support.text_engine import TextEngine

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

pytestmark = pytest.mark.process


def started(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    here = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}  # this checkout, whatever is installed
    return subprocess.run(command, env=here, capture_output=True, text=True, timeout=280)


def run(name: str, *arguments: str) -> str:
    done = started(name, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_none_is_left_out():
    text = Path(__file__).read_text()
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(re.findall(r"(\w+\.py)\"", text))


@pytest.mark.parametrize("sampled", [(), ("--temperature=1.0", "--seed=3")])
def test_one_process(tiny_qwen2: Path, tiny_llama: Path, sampled: tuple[str, ...]):
    asked = (f"--target={tiny_qwen2}", "--prompt=The heron", "--max-tokens=24", *sampled)
    written = run("one_process.py", f"--drafter={tiny_llama}", *asked)
    assert written.startswith("The heron") and re.search(r"\d+ steps, \d+ of \d+ draft tokens accepted\n$", written)
    by_itself = run("one_process.py", "--drafter=lookup", *asked)
    assert written.rpartition("\n\n")[0] == by_itself.rpartition("\n\n")[0], "the text is the target's own"


async def test_client():
    async with serving(TextEngine()) as (_, address):
        written = await asyncio.to_thread(run, "client.py", f"--verifier={address}", "--prompt=a story: ")
    assert re.search(r"\n\n\d+ tokens, \d\.\d\d a step, ended by (stop|length)\n$", written)


def test_client_says_plainly_that_nobody_answers():
    done = started("client.py", "--verifier=127.0.0.1:1")
    assert done.returncode == 1 and "no verifier answers" in done.stderr and "Traceback" not in done.stderr


def test_own_drafter(tiny_qwen2: Path):
    written = run("own_drafter.py", f"--target={tiny_qwen2}", "--prompt=The heron", "--max-tokens=16")
    assert written.startswith("The heron") and re.search(r"^phrases: \d+ of \d+ accepted$", written, re.MULTILINE)


def test_own_rule():
    assert run("own_rule.py").endswith("lossless: every sequence has the target's own probability\n")


def test_edge_to_cloud(tiny_qwen2: Path, tiny_llama: Path):
    written = run(
        "edge_to_cloud.py", f"--target={tiny_qwen2}", f"--drafter={tiny_llama}", "--round-trip=10", "--max-tokens=24"
    )
    assert "round trip 10 ms: the same 24 tokens" in written and re.search(r"drafted +\d+\.\d tokens/s", written)


@pytest.mark.parametrize("sampled", [(), ("--temperature=1.0",)])
def test_huggingface(tiny_qwen2: Path, tiny_llama: Path, sampled: tuple[str, ...]):
    models = f"--target={tiny_qwen2}", f"--drafter={tiny_llama}"
    written = run("huggingface.py", *models, "--prompt=The", "--max-tokens=24", *sampled)
    assert re.search(r"^0 drafters: .* tokens/s.*\n1 drafters: .* draft tokens accepted\n\nThe", written)
