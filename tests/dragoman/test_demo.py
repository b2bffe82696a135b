"""The demo's table and the length of its texts, without its processes."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.status import Status

from dragoman.demo import FEWEST_TOKENS, PATIENCE_SECONDS, TOKENS, fitting_tokens
from dragoman.demo_table import Comparison, DemoTable
from dragoman.prompts import PROMPTS
from speculation.protocol.completion import Completion
from speculation.text.text_stream import TextRun


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
