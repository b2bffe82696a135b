"""The demo's table, the length of its texts, and a target that hangs; without its processes."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from rich.console import Console
from rich.status import Status

from dragoman import demo, processes
from dragoman.demo import FEWEST_TOKENS, PATIENCE_SECONDS, TOKENS, DemoConfig, fitting_tokens, run_demo
from dragoman.demo_table import Comparison, DemoTable
from dragoman.prompts import PROMPTS
from speculation.errors import DragomanError
from speculation.protocol.completion import Completion
from speculation.protocol.messages import Prompt
from speculation.text.text_stream import TextRun
from tests.support.service_drivers import eventually


def written(seconds_per_token: float, *, ttft: float = 0.5, tokens: int = 12, text: bytes = b"one") -> Completion:
    answer = Completion([TextRun(text, False)], list(range(tokens)), ttft=ttft, first_tokens=1)
    answer.e2el = ttft + seconds_per_token * (tokens - 1)
    return answer


def table_on(width: int) -> tuple[DemoTable, io.StringIO]:
    said = io.StringIO()
    console = Console(file=said, width=width)
    return DemoTable(console, Status("", console=Console(file=io.StringIO()))), said


@pytest.mark.parametrize("seconds", [0.001, 0.1, 0.3])
def test_a_quick_target_writes_texts_of_full_length(seconds: float):
    assert fitting_tokens([written(seconds), written(seconds / 2)]) == TOKENS


def test_a_slow_one_writes_as_much_as_fits_into_the_time():
    tokens = fitting_tokens([written(1.0), written(0.5)])
    assert FEWEST_TOKENS < tokens < TOKENS
    assert PATIENCE_SECONDS * 0.9 < len(PROMPTS) * (2 * 0.5 + tokens * 1.5) <= PATIENCE_SECONDS


def test_the_slowest_one_still_writes_something():
    assert fitting_tokens([written(9.0), written(8.0, ttft=100.0)]) == FEWEST_TOKENS


def test_a_text_that_ends_at_once_tells_nothing_of_speed():
    assert fitting_tokens([written(9.0, tokens=1)] * 2) == TOKENS
    assert fitting_tokens([written(9.0, tokens=1, ttft=100.0)] * 2) == TOKENS


@pytest.mark.parametrize("width", [40, 80, 200])
def test_rows_are_printed_as_they_come_and_never_again(width: int):
    table, said = table_on(width)
    before = said.getvalue()
    assert before.startswith("The same text") and "alone" in before
    for number, prompt in enumerate(PROMPTS):
        table.add(Comparison(prompt, written(1.0), written(0.5 / 10**number)))
        assert said.getvalue().startswith(before) and len(said.getvalue().splitlines()) == len(before.splitlines()) + 1
        before = said.getvalue()
    table.end(2.0, identical=True)
    lines = said.getvalue().splitlines()
    assert lines[-1] == "speed-up 2.00x, identical: yes" and all(len(line) <= width for line in lines)


def test_the_table_is_that_of_all_rows_at_once():
    """Columns stay where they are, whatever comes."""
    table, said = table_on(100)
    for prompt in PROMPTS[:3]:
        table.add(Comparison(prompt, written(1.0), written(0.5, text=b"two")))
    rows = [line for line in said.getvalue().splitlines() if line.rstrip().endswith("NO")]
    assert len(rows) == 3 and len({row.index("2.00x") for row in rows}) == 1
    assert len({row.index("1.0") for row in rows}) == 1


class QuietChild:
    """A process that is ready at once, and then says nothing more."""

    last_words = "loading weights ...\nthe disk does not answer"

    def __init__(self) -> None:
        self.on_words: Callable[[str], None] = lambda line: None

    async def ready(self) -> dict[str, Any]:
        return {"address": "127.0.0.1:1"}

    async def during(self, work: Awaitable[Any]) -> Any:
        return await work


class EndlessClient:
    """A client whose texts never end."""

    def __init__(self, address: str) -> None:
        assert address == "127.0.0.1:1"

    async def complete(self, prompt: Prompt, **options: Any) -> Completion:
        await asyncio.Event().wait()
        raise AssertionError


CONFIG = DemoConfig(
    target="t", drafter="d", max_tokens=4, temperature=0.0, seed=0, device="cpu", target_dtype="auto",
    drafter_dtype="auto", target_threads=1, drafter_threads=1,
)  # fmt: skip


@pytest.fixture
def modelless(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No model is looked for."""
    for name in ("check_name", "show_licence", "resolve"):
        monkeypatch.setattr(demo, name, lambda *arguments, **options: None)
    monkeypatch.setattr(demo, "run_with_children", asyncio.run)
    return monkeypatch


@pytest.mark.process
def test_a_target_that_never_gets_ready_is_given_up_with_its_last_words(modelless: pytest.MonkeyPatch):
    says = "import sys, time; print('the disk does not answer', file=sys.stderr, flush=True); time.sleep(600)"

    @contextlib.asynccontextmanager
    async def speaking(name: str, arguments: list[str]) -> AsyncIterator[processes.ChildProcess]:
        async with processes.child(name, ["-n1", "-r1", says], module=("timeit",)) as started:
            await eventually(lambda: "the disk" in started.last_words)  # on a busy machine it takes a while to start
            yield started

    modelless.setattr(processes, "READY_SECONDS", 0.1)
    modelless.setattr(demo, "child", speaking)
    with pytest.raises(DragomanError, match=r"verifier was not ready within 0.1 s; .*\nthe disk does not answer"):
        run_demo(CONFIG, as_json=True)


def test_a_target_that_hangs_is_given_up_with_its_last_words(modelless: pytest.MonkeyPatch):
    modelless.setattr(demo, "QUIET_SECONDS", 0.05)
    modelless.setattr(demo, "child", lambda name, arguments: contextlib.nullcontext(QuietChild()))
    modelless.setattr(demo, "Client", lambda address: contextlib.nullcontext(EndlessClient(address)))
    with pytest.raises(DragomanError) as caught:
        run_demo(CONFIG, as_json=True)
    words = "the target wrote nothing for 0.05 s; the last that it said:"
    assert caught.value.message == f"{words}\n{QuietChild.last_words}"
