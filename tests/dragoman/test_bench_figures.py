"""Figures of a benchmark against values computed by hand, when requests arrive, and which prompts they have."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dragoman.bench.comparison import comparison_of
from dragoman.bench.figures import details_of, figures_of
from dragoman.bench.goal import Goal
from dragoman.bench.load import Load
from dragoman.bench.measurement import BenchRequest, Measurement, Speculation
from dragoman.bench.openai_stream import OpenAIStream
from dragoman.bench.percentiles import percentile
from dragoman.bench.prompts import Route, for_route, read_prompts, requests_of, route_of
from dragoman.bench.server_sent_events import data_lines
from dragoman.bench.settings import parse_metrics, parse_ranks
from speculation.errors import InputError, ProtocolError, SessionError
from speculation.protocol.messages import ChatMessage, Prompt

PROMPT = Prompt(text="a story: ")


def measured(number: int = 0, *, draft: bool = True, **fields: Any) -> Measurement:
    return Measurement(BenchRequest(number, PROMPT, draft=draft), started=0.0, **fields)


SHORT = measured(arrivals=(0.2,), e2el=0.2, prompt_tokens=3, output_tokens=1)
LONG = measured(arrivals=(0.1, 0.15, 0.3), e2el=0.3, prompt_tokens=7, output_tokens=5)
FAILED = measured(e2el=9.0, error="no")


def test_figures_are_those_of_vllm():
    found = figures_of([SHORT, LONG, FAILED], 2.0, goal=Goal(ttft_ms=150.0), ranks=(99, 99.9))
    expected = {
        "completed": 2,
        "failed": 1,
        "duration": 2.0,
        "total_input_tokens": 10,
        "total_output_tokens": 6,
        "request_throughput": 1.0,
        "request_goodput": 0.5,
        "output_throughput": 3.0,
        "total_token_throughput": 8.0,
        "mean_ttft_ms": 150.0,
        "median_ttft_ms": 150.0,
        "std_ttft_ms": 50.0,
        "p99_ttft_ms": 199.0,
        "p99.9_ttft_ms": 199.9,
        "mean_tpot_ms": 50.0,  # (300 - 100) / 4: the text of one token has none
        "std_tpot_ms": 0.0,
        "mean_itl_ms": 100.0,
        "std_itl_ms": 50.0,
        "mean_e2el_ms": 250.0,
        "p99_e2el_ms": 299.0,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert not [name for name in found if name.startswith("spec_decode")]


def test_only_the_chosen_latencies_are_told_and_goodput_with_a_goal_only():
    found = figures_of([LONG], 1.0, goal=Goal(), metrics=("itl",), ranks=())
    assert [name for name in found if name.endswith("_ms")] == ["mean_itl_ms", "median_itl_ms", "std_itl_ms"]
    assert found["request_goodput"] is None


def test_without_answers_there_are_no_latencies():
    found = figures_of([FAILED], 1.0, goal=Goal(tpot_ms=1.0))
    assert (found["completed"], found["failed"], found["output_throughput"], found["request_goodput"]) == (0, 1, 0, 0)
    assert found["mean_ttft_ms"] is None and found["p99_itl_ms"] is None


def test_percentiles_are_those_of_numpy():
    chance = np.random.default_rng(3)
    for size in (1, 2, 7, 100):
        values = chance.normal(size=size).tolist()
        for rank in (0, 12.5, 50, 99, 99.9, 100):
            assert percentile(values, rank) == pytest.approx(np.percentile(values, rank))


def told(steps: int, committed: int, drafts: int, accepted: int, *positions: int) -> Measurement:
    return measured(speculation=Speculation(steps, committed, drafts, accepted, positions), output_tokens=committed)


def test_acceptance_is_over_all_texts_and_its_length_counts_the_bonus_token():
    found = figures_of([told(4, 10, 8, 6, 3, 2, 1), told(6, 8, 4, 2, 2), LONG], 1.0, goal=Goal())
    assert found["spec_decode_acceptance_rate"] == pytest.approx(100 * 8 / 12)
    assert found["spec_decode_acceptance_length"] == 1.8
    assert (found["spec_decode_draft_tokens"], found["spec_decode_accepted_tokens"]) == (12, 8)
    assert found["spec_decode_num_drafts"] == 10
    assert found["spec_decode_per_position_acceptance_rates"] == [0.5, 0.2, 0.1]
    assert figures_of([told(2, 2, 0, 0)], 1.0, goal=Goal())["spec_decode_acceptance_rate"] is None


def test_speculation_is_read_of_what_dragoman_tells_and_of_nothing_else():
    whole = {"steps": 4, "draft_tokens": 8, "accepted_tokens": 6, "tokens_per_step": 2.5}
    assert Speculation.from_json(whole) == Speculation(4, 10, 8, 6)
    assert Speculation.from_json(whole | {"accepted_tokens_per_pos": [4, 2]}) == Speculation(4, 10, 8, 6, (4, 2))
    for other in (None, "eagle", {"steps": 4}, whole | {"steps": None}):
        assert Speculation.from_json(other) is None


def test_goals_are_read_together_or_one_by_one():
    assert Goal.parse(["ttft:200 tpot:20", "e2el:5e3"]) == Goal(ttft_ms=200.0, tpot_ms=20.0, e2el_ms=5000.0)
    assert not Goal.parse([]).given and Goal.parse(["tpot:0"]).given
    for wrong in ("ttft", "ttft:", "ttft:x", "itl:3", "tpot:-1", "tpot:nan"):
        with pytest.raises(InputError, match="goodput="):
            Goal.parse([wrong])


def test_a_comparison_is_made_of_pairs_that_were_both_answered():
    drafted = [
        measured(0, text="a", arrivals=(0.1,), e2el=0.5, output_tokens=5),
        measured(1, text="b", arrivals=(0.1,), e2el=0.5, output_tokens=5),
        measured(2, error="no"),
        measured(3, text="d", e2el=1.0, output_tokens=5),
        measured(4, text="e", arrivals=(0.1,), e2el=0.6, output_tokens=6),
    ]
    alone = [
        measured(4, draft=False, text="x", arrivals=(0.1,), e2el=0.3, output_tokens=6),
        measured(1, draft=False, text="b", arrivals=(0.1,), e2el=1.5, output_tokens=5),
        measured(0, draft=False, text="a", arrivals=(0.1,), e2el=1.0, output_tokens=5),
        measured(2, draft=False, text="c", e2el=1.0, output_tokens=5),
        measured(3, draft=False, error="no"),
    ]
    found = comparison_of(drafted, alone)
    assert (found["pairs"], found["identical_texts"], found["speed_ups"]) == (3, 2, pytest.approx([2.0, 3.0, 0.5]))
    assert found["median_speed_up"] == pytest.approx(2.0) and found["worst_speed_up"] == pytest.approx(0.5)
    assert (found["p25_speed_up"], found["p75_speed_up"]) == pytest.approx((1.25, 2.5))
    assert found["median_tpot_speed_up"] == pytest.approx(0.9 / 0.4)
    assert comparison_of([], []) == {"pairs": 0, "identical_texts": 0, "speed_ups": []}


def test_details_are_told_request_by_request():
    found = details_of([LONG, FAILED])
    assert found["itls"] == [pytest.approx([0.05, 0.15]), []] and found["errors"] == ["", "no"]
    assert {len(values) for values in found.values()} == {2}


def gaps(load: Load, count: int) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise([0.0, *load.arrival_times(count)])]


def test_arrivals_are_those_of_the_seed_and_keep_the_rate():
    times = Load(10.0, seed=3).arrival_times(500)
    assert times == sorted(times) == Load(10.0, seed=3).arrival_times(500) != Load(10.0, seed=4).arrival_times(500)
    assert times[-1] == pytest.approx(50.0)
    assert Load().arrival_times(3) == [0.0, 0.0, 0.0] and Load(10.0).arrival_times(0) == []


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_burstiness_is_the_shape_of_a_gamma_distribution(burstiness: float):
    """Squared coefficient of variation 1 / shape; with 20,000 waits a deviation of a tenth would be seen."""
    waits = gaps(Load(5.0, burstiness, seed=1), 20_000)
    assert np.var(waits) / np.mean(waits) ** 2 == pytest.approx(1 / burstiness, rel=0.1)


def test_infinite_burstiness_is_an_even_beat():
    assert gaps(Load(4.0, math.inf), 5) == pytest.approx([0.25] * 5)


@pytest.mark.parametrize("wrong", [{"request_rate": 0.0}, {"request_rate": math.nan}, {"burstiness": 0.0}])
def test_loads_that_make_no_sense_are_refused(wrong: dict[str, float]):
    with pytest.raises(InputError, match=next(iter(wrong)).replace("_", "-")):
        Load(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="max-concurrency=0"):
        Load(max_concurrency=0)


def test_prompts_are_read_of_both_formats(tmp_path: Path):
    file = tmp_path / "prompts.jsonl"
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    lines = [json.dumps({"prompt": "one\u2028two"}, ensure_ascii=False), "", json.dumps({"messages": chat, "id": 3})]
    file.write_text("\n".join(lines), "utf-8")
    text, conversation = read_prompts(file)
    assert text == Prompt(text="one\u2028two") and [turn.role for turn in conversation.messages] == ["system", "user"]
    assert route_of([text]) is Route.COMPLETIONS and route_of([text, conversation]) is Route.CHAT
    assert for_route(text, Route.CHAT).messages == (ChatMessage("user", "one\u2028two"),)
    assert for_route(for_route(text, Route.CHAT), Route.COMPLETIONS) == text
    with pytest.raises(InputError, match=r"endpoint='/v1/completions': .* of 2 messages"):
        for_route(conversation, Route.COMPLETIONS)


@pytest.mark.parametrize(
    "line, words",
    [
        ("{", "is not JSON"),
        ("[]", "is no prompt"),
        ('{"prompt": 3}', "is no prompt"),
        ('{"prompt": ""}', "is no prompt"),
        ('{"messages": []}', "is no prompt"),
        ('{"messages": [{"role": "user", "content": [1]}]}', "without role or content"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, line: str, words: str):
    file = tmp_path / "prompts.jsonl"
    file.write_text(f'{{"prompt": "good"}}\n\n{line}\n', "utf-8")
    with pytest.raises(InputError, match=rf"prompts.jsonl:3': .*{words}"):
        read_prompts(file)


def test_files_without_prompts_are_refused(tmp_path: Path):
    (tmp_path / "latin").write_bytes(b'{"prompt": "\xe9"}')
    (tmp_path / "empty").write_text("\n")
    for name, words in (("none", "cannot be read"), ("latin", "not UTF-8"), ("empty", "has no prompts")):
        with pytest.raises(InputError, match=words):
            read_prompts(tmp_path / name)


def test_built_in_prompts_come_in_the_order_of_the_seed_and_again_if_more_are_wanted():
    prompts = read_prompts(None)
    assert len(set(prompts)) == len(prompts) > 20 and route_of(prompts) is Route.CHAT
    once = requests_of(prompts, count=None, seed=5)
    assert {one.prompt for one in once} == set(prompts) and [one.prompt for one in once] != prompts
    more = requests_of(prompts, count=len(prompts) + 2, seed=5)
    assert more[: len(prompts)] == once and [one.prompt for one in more[-2:]] == [one.prompt for one in once[:2]]
    assert [one.seed for one in more[:3]] == [5, 6, 7] and len({one.seed for one in more}) == len(more)


def test_lists_of_options_are_checked():
    assert parse_metrics("ttft, itl") == ("ttft", "itl") and parse_ranks("50,99.9") == (50.0, 99.9)
    with pytest.raises(InputError, match="percentile-metrics='foo'"):
        parse_metrics("ttft,foo")
    for wrong in ("x", "101", "nan", ""):
        with pytest.raises(InputError, match="metric-percentiles="):
            parse_ranks(wrong)


def streamed(*events: tuple[float, dict[str, Any]]) -> Measurement:
    stream = OpenAIStream(BenchRequest(0, PROMPT), started=0.0, url="http://x")
    for at, event in events:
        stream.take(event, at)
    return stream.measurement()


def delta(finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish_reason}], "usage": None}


USAGE = {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 9}}


def test_the_first_token_is_the_first_text_and_the_last_is_the_end_of_the_text():
    found = streamed(
        (0.1, delta(role="assistant", content="")),
        (0.3, delta(reasoning_content="Hm")),
        (0.5, delta(content="Yes")),
        (0.6, delta(content="")),
        (0.7, delta("stop")),
        (0.9, USAGE),
    )
    assert (found.ttft, found.e2el, found.itls) == (0.3, 0.7, pytest.approx([0.2])) and found.text == "HmYes"
    assert (found.prompt_tokens, found.output_tokens, found.tpot) == (4, 9, pytest.approx(0.4 / 8))


def test_a_stream_without_its_end_or_its_usage_is_no_measurement():
    with pytest.raises(SessionError, match="mid-text"):
        streamed((0.1, delta(content="Yes")), (0.2, USAGE))
    with pytest.raises(ProtocolError, match="how many tokens"):
        streamed((0.1, delta("stop", content="Yes")))


async def test_events_are_cut_at_line_feeds_alone():
    async def parts() -> AsyncIterator[bytes]:
        for part in (
            b"da",
            "ta: a\u2028\x85b\r\n\r\n: ping\n\nevent: x\nda".encode(),
            b"ta:c\n",
            b"\ndata: unfinished",
        ):
            yield part

    assert [line async for line in data_lines(parts())] == ["a\u2028\x85b".encode(), b"c"]
