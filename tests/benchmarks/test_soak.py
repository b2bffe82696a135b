"""What counts as growth, and that a fleet whose processes die at random loses no text and keeps nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.pair_processes import Side
from benchmarks.soak import Setup, soak
from benchmarks.soak_figures import draw
from benchmarks.soak_resources import Sample, growth
from speculation.protocol.messages import Prompt

MIB = 1 << 20


def samples(memory: list[int], files: list[int], tasks: int | None = 7) -> list[Sample]:
    return [
        Sample("verifier-0", float(at), held * MIB, opened, threads=9, tasks=tasks)
        for at, (held, opened) in enumerate(zip(memory, files, strict=True))
    ]


def test_what_grows_after_the_first_quarter_is_told():
    filling = [100] * 25 + [500] * 75
    leaking = [500 + minute for minute in range(100)]
    flat = {row["resource"]: row["flat"] for row in growth(samples(filling, [40] * 100))}
    assert flat == {"memory": True, "files": True, "threads": True, "tasks": True}
    rows = {row["resource"]: row for row in growth(samples(leaking, [40 + minute // 5 for minute in range(100)]))}
    assert not rows["memory"]["flat"] and rows["memory"]["early"] == 537 * MIB and rows["memory"]["late"] == 587 * MIB
    assert not rows["files"]["flat"] and rows["threads"]["flat"]


def test_what_nobody_tells_is_no_row():
    assert "tasks" not in {row["resource"] for row in growth(samples([500] * 40, [40] * 40, tasks=None))}
    assert growth([]) == []


@pytest.mark.process
@pytest.mark.slow
async def test_a_short_soak(tiny_qwen2: Path, tiny_llama: Path, tmp_path: Path):
    setup = Setup(
        target=str(tiny_qwen2),
        replicas=2,
        drafters=["lookup", str(tiny_llama)],
        side=Side("cpu", "float32", threads=1),
        clients=3,
        max_tokens=60,
        minutes=0.5,
        fault_every=3.0,
        sample_every=1.0,
        seed=5,
    )
    found = await soak(setup, [Prompt(text="The heron"), Prompt(text="def add(a, b):")])
    texts = found["texts"]
    assert texts["different"] == [] and texts["lost"] == [] and found["left"] == {} and not found["died"]
    assert found["faults"]["verifier-1 killed"] > 0 and texts["texts"] > 10 and texts["accepted_tokens"] > 0
    assert found["unwatched"] == []
    watched = {(row["process"], row["resource"]) for row in found["growth"]}
    assert {("verifier-0", "tasks"), ("clients", "memory"), ("coordinator", "files")} <= watched
    draw(found, tmp_path / "soak.png")
    assert (tmp_path / "soak.png").stat().st_size > 10_000
