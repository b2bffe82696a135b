"""What counts as a flip, and that no arm of real processes has one."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.flips import ARMS, REFERENCE, Bench, Setup, check, compare, show
from benchmarks.pair_processes import Side
from speculation.errors import InputError
from speculation.protocol.completion import Completion
from speculation.protocol.generation import SourceStats, SpeculationStats
from speculation.protocol.messages import Prompt
from speculation.source import SourceKind
from speculation.text.text_stream import TextRun


def answer(text: bytes, *ids: int) -> Completion:
    return Completion(runs=[TextRun(text, False)], token_ids=list(ids))


def test_a_text_flips_once_where_it_first_differs():
    reference = [answer(b"abc", 1, 2, 3), answer(b"ab", 1, 2), answer(b"abc", 1, 2, 3)]
    assert compare(reference, reference)["flips"] == [] and compare(reference, reference)["tokens"] == 8
    found = compare(reference, [answer(b"abc", 1, 2, 3), answer(b"ax", 1, 9), answer(b"ab", 1, 2)])
    assert found["flips"] == [{"prompt": 1, "token": 1}, {"prompt": 2, "token": 2}]
    assert found["tokens"] == 3 + 2 + 3, "what comes after a flip is no token compared"
    other_bytes = compare(reference[:1], [answer(b"abd", 1, 2, 3)])
    assert other_bytes["flips"] == [{"prompt": 0, "token": 3}], "bytes count as well as ids"


def test_it_shows_whether_drafters_took_part():
    shares = (SourceStats(SourceKind.LOOKUP, draft_tokens=5), SourceStats(SourceKind.DRAFTER, draft_tokens=2))
    helped = answer(b"abc", 1, 2, 3)
    helped.stats = SpeculationStats(draft_tokens=7, accepted_tokens=3, sources=shares)
    found = compare([answer(b"abc", 1, 2, 3)] * 2, [helped, answer(b"abc", 1, 2, 3)])
    assert (found["draft_tokens"], found["drafters_tokens"], found["accepted_tokens"]) == (7, 2, 3)


def test_arms_have_names():
    check(list(ARMS))
    with pytest.raises(InputError, match="arm='wider'"):
        check(["lookup", "wider"])


@pytest.mark.process
@pytest.mark.slow
async def test_no_text_of_real_processes_flips(tiny_llama: Path, tiny_qwen2: Path):
    side = Side("cpu", "float32", threads=1)
    setup = Setup(
        target=str(tiny_llama),
        drafters=[str(tiny_qwen2)],
        verifier=side,
        drafting=side,
        arms=list(ARMS),
        temperatures=[0.0, 0.8],
        concurrency=3,
        max_tokens=24,
        ignore_end=False,
        width=31,
    )
    prompts = [Prompt(text=text) for text in ("The heron waits", "def add(a, b):", "The cat")]
    shown = io.StringIO()
    bench = Bench(setup, prompts, Console(file=shown, width=80))
    await bench.run()
    rows: list[dict[str, Any]] = bench.rows
    assert {row["arm"] for row in rows} == {REFERENCE, *ARMS}
    assert all(row["flips"] == [] and row["texts"] == 3 and row["tokens"] > 0 for row in rows)
    drafted = {row["arm"] for row in rows if row["accepted_tokens"]}
    assert {"drafter", "together", "wide", "wide_together", "resumed"} <= drafted
    assert all(row["replayed_tokens"] > 0 for row in rows if row["arm"] == "resumed")
    show(rows, Console(file=shown, width=80))
    assert "0 flips in" in shown.getvalue() and "wide together" in shown.getvalue()
