"""What the verifier counts, as Prometheus sees it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import urllib.request
from collections import Counter
from pathlib import Path

import grpc
import pytest
from prometheus_client import CollectorRegistry

from benchmarks.ports import free_port
from dragoman.client import Client
from dragoman.processes import child
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.protocol.messages import Prompt, SpeculationPlan
from speculation.sampling.params import SamplingParams
from speculation.source import SourceKind
from tests.support.commands import dragoman
from tests.support.scrapes import Collected, collect
from tests.support.service_drivers import WAITING, drafters, drafting, eventually, request, serving, stub_to, text_of
from tests.support.text_engine import TextEngine
from verifier_service.instruments import PrometheusInstruments
from verifier_service.metrics import VerifierMetrics

VLLM_COUNTERS = {
    "num_preemptions",
    "prompt_tokens",
    "generation_tokens",
    "request_success",
    "prefix_cache_queries",
    "prefix_cache_hits",
    "spec_decode_num_drafts",
    "spec_decode_num_draft_tokens",
    "spec_decode_num_accepted_tokens",
    "spec_decode_num_accepted_tokens_per_pos",
}
OWN_COUNTERS = {
    "spec_decode_num_draft_tokens_per_source",
    "spec_decode_num_accepted_tokens_per_source",
    "stale_drafts",
    "tokens_without_drafter",
    "drafter_reconnects",
    "drafter_streams_ended",
    "refused",
}
VLLM_GAUGES = {"num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"}
OWN_GAUGES = {"drafters_connected", "plan_width", "plan_lookahead", "kv_pages", "kv_pages_held", "kv_cache_bytes"}
VLLM_HISTOGRAMS = {
    "time_to_first_token_seconds",
    "inter_token_latency_seconds",
    "request_time_per_output_token_seconds",
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
    "request_prefill_time_seconds",
    "request_decode_time_seconds",
    "request_inference_time_seconds",
    "request_prompt_tokens",
    "request_generation_tokens",
    "request_params_max_tokens",
}
OWN_HISTOGRAMS = {"round_trip_seconds", "speculation_length"}
KINDS = {
    f"{prefix}{name}": kind
    for prefix, kind, names in (
        ("vllm:", "counter", VLLM_COUNTERS),
        ("vllm:", "gauge", VLLM_GAUGES),
        ("vllm:", "histogram", VLLM_HISTOGRAMS),
        ("dragoman_", "counter", OWN_COUNTERS),
        ("dragoman_", "gauge", OWN_GAUGES),
        ("dragoman_", "histogram", OWN_HISTOGRAMS),
    )
    for name in names
}


REASONS = {pb.FINISH_REASON_STOP: "stop", pb.FINISH_REASON_LENGTH: "length"}


@contextlib.asynccontextmanager
async def counted(**kwargs):
    registry = CollectorRegistry()
    instruments = PrometheusInstruments(registry, "target")
    async with serving(TextEngine(), instruments=instruments, adaptive=False, **kwargs) as (verifier, address):
        yield registry, verifier, address


def standing(registry: CollectorRegistry) -> float:
    found = collect(registry)
    return found["num_requests_running"] + found["num_requests_waiting"]


async def test_the_counters_are_the_sums_of_what_the_sessions_tell():
    async with counted(plan=WAITING) as (registry, verifier, address), drafting(address):
        await drafters(verifier, 1)
        told = []
        for seed in range(3):
            _, finished = await text_of(address, request(SamplingParams(seed=seed)))
            told.append(finished)
        await eventually(lambda: standing(registry) == 0)
        found = collect(registry)
    stats = [finished.speculation for finished in told]
    assert found["generation_tokens_total"] == sum(finished.completion_tokens for finished in told)
    assert found["prompt_tokens_total"] == sum(finished.prompt_tokens for finished in told)
    assert found["spec_decode_num_draft_tokens_total"] == sum(one.draft_tokens for one in stats) > 0
    assert found["spec_decode_num_accepted_tokens_total"] == sum(one.accepted_tokens for one in stats) > 0
    assert found["spec_decode_num_accepted_tokens_per_pos_total"] == sum(one.accepted_tokens for one in stats)
    per_position = [sum(column) for column in zip(*(pad(one.accepted_tokens_per_pos) for one in stats), strict=True)]
    assert [found.positions.get(position, 0) for position in range(16)] == per_position
    assert 0 < found["spec_decode_num_drafts_total"] <= sum(one.steps for one in stats)
    assert found["stale_drafts_total"] == sum(one.stale_spans for one in stats)
    steps = sum(one.steps for one in stats)
    assert found["speculation_length_count"] == steps
    assert found["speculation_length_sum"] == found["spec_decode_num_draft_tokens_total"]
    assert found["time_to_first_token_seconds_count"] == found["e2e_request_latency_seconds_count"] == 3
    assert found["inter_token_latency_seconds_count"] == steps - 3
    for name in ("queue_time_seconds", "prefill_time_seconds", "decode_time_seconds", "inference_time_seconds"):
        assert found[f"request_{name}_count"] == 3
    assert found["request_prompt_tokens_sum"] == found["prompt_tokens_total"]
    assert found["request_generation_tokens_sum"] == found["generation_tokens_total"]
    assert found["request_params_max_tokens_sum"] == 3 * 60
    parts = found["request_queue_time_seconds_sum"] + found["request_inference_time_seconds_sum"]
    assert parts <= found["e2e_request_latency_seconds_sum"]
    assert {reason: count for reason, count in found.reasons.items() if count} == {
        reason: count for reason, count in Counter(REASONS[one.finish_reason] for one in told).items()
    }
    assert set(found.reasons) == {"stop", "length", "abort", "error"}
    assert found["round_trip_seconds_count"] > 0
    assert (found["plan_width"], found["plan_lookahead"]) == (8, 8)


def pad(accepted) -> list[int]:
    return [*accepted, *[0] * (16 - len(accepted))]


async def test_who_drafted_is_told_apart_and_adds_up():
    async with counted(plan=WAITING) as (registry, verifier, address):
        none = collect(registry)
        assert none["drafters_connected"] == 0
        assert none.drafted == none.accepted == dict.fromkeys(OTHERS, 0)
        await text_of(address, request(SamplingParams(), ignore_end=True))
        await eventually(lambda: standing(registry) == 0)
        alone = collect(registry)
        assert alone["tokens_without_drafter_total"] == alone["generation_tokens_total"] > 0
        own = alone.drafted["lookup", ""], alone.drafted["recycled", ""]
        assert sum(own) == alone["spec_decode_num_draft_tokens_total"] and min(own) > 0
        assert set(alone.drafted) == OTHERS, "without a drafter nothing is a drafter's"
        async with drafting(address):
            await drafters(verifier, 1)
            assert collect(registry)["drafters_connected"] == 1
            text, _ = await text_of(address, request(SamplingParams(seed=1)))
            again = request(SamplingParams(seed=1), prediction=text[:20], received=text[:10])
            _, finished = await text_of(address, again)
            await eventually(lambda: standing(registry) == 0)
            [link] = verifier.describe().drafters
        await drafters(verifier, 0)
        found = collect(registry)
    assert found["drafters_connected"] == 0
    assert set(found.drafted) == set(found.accepted) == {*OTHERS, ("drafter", "d")}
    for counts, total in ((found.drafted, "draft_tokens"), (found.accepted, "accepted_tokens")):
        replayed = counts.pop(("replay", ""))
        assert sum(counts.values()) == found[f"spec_decode_num_{total}_total"] and replayed > 0
        assert getattr(link, total) == counts["drafter", "d"] > 0, "Describe says the same"
    assert {source.source for source in finished.speculation.sources} >= {pb.DRAFT_SOURCE_REPLAY}


OTHERS = {("prediction", ""), ("lookup", ""), ("replay", ""), ("grammar", ""), ("recycled", "")}


def test_drafters_that_call_themselves_anything_are_few_series():
    registry = CollectorRegistry()
    metrics = VerifierMetrics(PrometheusInstruments(registry, "target"), engine=TextEngine(), sessions={})
    for number in range(500):
        metrics.drafted(SourceKind.DRAFTER, f"name {number}", 2, 1)
    found = collect(registry)
    assert len(found.drafted) == len(OTHERS) + 64 + 1
    assert found.drafted["drafter", "others"] == 2 * (500 - 64) and found.accepted["drafter", "name 63"] == 1


async def test_every_figure_is_there_before_anything_happens():
    async with counted() as (registry, _, _):
        kinds = collect(registry).kinds
    assert kinds == KINDS


async def test_sessions_and_reconnects_are_seen_while_they_last():
    plan = SpeculationPlan(width=0)
    async with counted(plan=plan) as (registry, verifier, address):
        for expected in (0, 1):
            async with drafting(address, instance="one"):
                await drafters(verifier, 1)
                assert collect(registry)["drafter_reconnects_total"] == expected
            await drafters(verifier, 0)
        seen = []

        async def look(_: bytes) -> None:
            seen.append(standing(registry))

        await text_of(address, request(SamplingParams(), max_tokens=300, ignore_end=True), look)
        assert max(seen) == 1
        assert collect(registry)["spec_decode_num_drafts_total"] == 0


async def test_a_session_that_its_client_leaves_is_counted_as_far_as_it_came():
    async with counted() as (registry, verifier, address), stub_to(address) as stub:
        engine = verifier.engine
        assert isinstance(engine, TextEngine)
        stream = stub.Generate(request(SamplingParams(), max_tokens=0, ignore_end=True))
        async for response in stream:
            if isinstance(response, pb.GenerateResponse) and response.HasField("chunk"):
                break
        engine.gate.clear()  # or a busy client leaves after the end
        stream.cancel()
        await eventually(lambda: not verifier.sessions or not verifier.sessions[0].drafters.open)
        engine.gate.set()
        await eventually(lambda: standing(registry) == 0)
        found = collect(registry)
    assert found["generation_tokens_total"] > 0
    assert found["e2e_request_latency_seconds_count"] == 0
    assert found.reasons == {"stop": 0, "length": 0, "abort": 1, "error": 0}


async def test_the_command_serves_them(tiny_llama: Path):
    port = free_port()
    command = ["verifier", f"--model={tiny_llama}", "--listen=127.0.0.1:0", f"--metrics-port={port}", "--threads=1"]
    async with child("verifier", command) as started:
        address = (await started.ready())["address"]
        async with Client(address) as client:
            await client.complete(Prompt(text="The heron"), max_tokens=5, ignore_end=True)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            found = Collected(answer.read().decode())
        assert found["generation_tokens_total"] == 5 and found["drafters_connected"] == 0
        name = f"{socket.gethostname()}/{tiny_llama.name}:{address.rpartition(':')[2]}"
        assert found.replicas == {name}, "the verifier's name"
        assert found.process["process_resident_memory_bytes"] > 50e6 and found.process["process_open_fds"] > 3
        assert found.process["dragoman_event_loop_tasks"] > 0
        alone = dragoman("generate", f"--verifier={address}", "--prompt=The heron", "--max-tokens=5")
        assert "no drafter is connected" in alone.stderr
        taken = dragoman("verifier", f"--model={tiny_llama}", "--listen=127.0.0.1:0", f"--metrics-port={port}")
    assert taken.returncode == 4 and "give another --metrics-port" in taken.stderr


def test_a_port_that_is_none():
    refused = dragoman("verifier", "--model=x", "--metrics-port=0")
    assert refused.returncode == 2


async def test_who_waits_for_memory_and_who_has_it():
    registry = CollectorRegistry()
    instruments, engine = PrometheusInstruments(registry, "target"), TextEngine(rows=16, room=100)
    async with serving(engine, instruments=instruments, adaptive=False) as (_, address):
        engine.gate.clear()
        asked = [text_of(address, request(SamplingParams(seed=seed), ignore_end=True)) for seed in range(3)]
        tasks = [asyncio.create_task(each) for each in asked]
        try:
            await eventually(lambda: standing(registry) == 3 and collect(registry)["kv_cache_bytes"] > 0)
            held = collect(registry)
            assert (held["num_requests_running"], held["num_requests_waiting"], held["kv_pages"]) == (1, 2, 100)
            assert held["kv_cache_usage_perc"] == held["kv_pages_held"] / 100 > 0.5
        finally:
            engine.gate.set()
            await asyncio.gather(*tasks)
        await eventually(lambda: standing(registry) == 0)
        after = collect(registry)
    assert after["kv_pages_held"] == after["kv_cache_usage_perc"] == after["kv_cache_bytes"] == 0
    assert after["request_queue_time_seconds_count"] == after.reason("length") == 3


async def test_a_request_that_fails_is_no_success():
    registry = CollectorRegistry()

    class Broken(TextEngine):
        def step(self, batch):
            raise RuntimeError("no")

    async with serving(Broken(), instruments=PrometheusInstruments(registry, "target")) as (_, address):
        with pytest.raises(grpc.aio.AioRpcError):
            await text_of(address, request(SamplingParams()))
        await eventually(lambda: standing(registry) == 0)
        assert collect(registry).reasons == {"stop": 0, "length": 0, "abort": 0, "error": 1}
