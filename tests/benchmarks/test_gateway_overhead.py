"""What the gateway costs: measured over real processes, one request and several at once, and streams that wait."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.gateway_overhead import Setup, measure, texts_to_replay


def test_recorded_texts_differ_by_their_prompts_alone(tiny_qwen2: Path):
    texts = texts_to_replay(str(tiny_qwen2), 3, tokens=5)
    assert len({tuple(text.prompt_ids) for text in texts}) == 3
    assert all(len(text.token_ids) == len(text.tokens) == 5 and text.token_ids == texts[0].token_ids for text in texts)


@pytest.mark.process
async def test_pairs_over_both_ways_have_the_same_text(tiny_qwen2: Path):
    setup = Setup(target=str(tiny_qwen2), step=0.001, tokens=4, streams=2, pairs=3, rounds=2, idle=40)
    found = await measure(setup, settle=2.0)
    assert found["identical_texts"] and found["idle_streams"] == 40
    assert found["added_mib"] < 40, "a stream that waits takes a tenth of a MiB, not a whole one"
    for kind in ("alone", "together"):
        assert {"median_ttft_added_ms", "p75_chunk_added_ms"} <= set(found[kind])
        assert found[kind]["median_grpc_ttft_ms"] > 0 and found[kind]["median_grpc_tpot_ms"] > 0
