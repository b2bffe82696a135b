"""A short outage, with tiny models: the benchmark says of a link that was gone what there is to say."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.namespaces import possible, two_hosts
from benchmarks.outage import Outage, Watched, measure, measure_lost, show
from benchmarks.pair_processes import Side
from speculation.errors import InputError

pytestmark = pytest.mark.process

SIDE = Side(device="cpu", dtype="float32", threads=1)


async def test_drafts_come_back_and_no_byte_differs(tiny_qwen2: Path, tiny_llama: Path):
    found = await measure(str(tiny_qwen2), str(tiny_llama), SIDE, seconds=1.0, max_tokens=60, delay=0.002, patience=2.0)
    assert [one.fault for one in found] == ["silent", "refused"]
    for one in found:
        check(one)
    said = io.StringIO()
    show(found, Console(file=said, width=100))
    assert len(said.getvalue().splitlines()) == 1 + len(found) and "never" not in said.getvalue()


@pytest.mark.netns
@pytest.mark.skipif(not possible(), reason="needs root and the ip command")
async def test_packets_that_are_lost_cost_no_byte_and_drafts_come_back(tiny_qwen2: Path, tiny_llama: Path):
    with two_hosts() as hosts:
        try:
            hosts.road()
        except InputError as error:
            pytest.skip(str(error))
    # Longer than a drafter takes for a sign of life that a busy verifier owes it.
    [one] = await measure_lost(str(tiny_qwen2), str(tiny_llama), SIDE, seconds=5.0, max_tokens=60, patience=2.0)
    assert one.fault == "lost"
    check(one)


def check(one: Outage) -> None:
    assert one.texts > 0 and one.differing == 0
    assert one.drafts_back is not None and one.accepted_back is not None
    assert 0 < one.drafts_back <= one.accepted_back
    assert one.longest_gap > 0 and one.usual_gap > 0


def test_the_longest_gap_is_one_of_that_time():
    watched = Watched(chunks=[0.0, 0.1, 0.2, 0.9, 1.0, 5.0])
    assert watched.longest_gap(0.15, 0.95) == pytest.approx(0.7)
    assert watched.longest_gap(0.95, 1.05) == pytest.approx(4.0)
    assert watched.longest_gap(6.0, 7.0) == 0.0
