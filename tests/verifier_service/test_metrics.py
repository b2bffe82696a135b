"""What the verifier counts, as Prometheus sees it."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.ports import free_port
from dragoman.client import Client
from dragoman.processes import child
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.protocol.messages import Prompt, SpeculationPlan
from speculation.sampling.params import SamplingParams
from speculation.source import SourceKind
from tests.support.commands import dragoman
from tests.support.service_drivers import SLOW, drafters, drafting, eventually, request, serving, stub_to, text_of
from tests.support.text_engine import TextEngine
from verifier_service.metrics import PREFIX, PrometheusInstruments, VerifierMetrics

COUNTERS = {
    "num_preemptions",
    "spec_decode_num_drafts",
    "spec_decode_num_draft_tokens",
    "spec_decode_num_accepted_tokens",
    "spec_decode_num_accepted_tokens_per_pos",
    "spec_decode_num_draft_tokens_per_source",
    "spec_decode_num_accepted_tokens_per_source",
    "prompt_tokens",
    "generation_tokens",
    "stale_drafts",
    "drafter_reconnects",
    "refused",
}
GAUGES = {"drafters_connected", "sessions_active", "plan_width", "plan_lookahead"}
HISTOGRAMS = {
    "time_to_first_token_seconds",
    "inter_token_latency_seconds",
    "e2e_request_latency_seconds",
    "round_trip_seconds",
    "speculation_length",
}


class Collected:
    """Samples of the verifier by name, summed over labels other than the model's; ``process``: of its process."""

    def __init__(self, text: str) -> None:
        self.kinds: dict[str, str] = {}
        self.replicas: set[str] = set()
        self.process: dict[str, float] = {}
        self.values: dict[str, float] = {}
        self.positions: dict[int, float] = {}
        self.drafted: dict[tuple[str, str], float] = {}  # draft tokens by source and drafter
        self.accepted: dict[tuple[str, str], float] = {}
        for family in text_string_to_metric_families(text):
            if family.name.endswith("_created"):
                continue
            if family.name.startswith("process_") or family.name == PREFIX + "event_loop_tasks":
                self.process[family.name] = family.samples[0].value
                continue
            self.kinds[family.name] = family.type
            for sample in family.samples:
                assert sample.labels["model_name"]
                self.replicas.add(sample.labels["replica"])
                if not sample.name.endswith(("_created", "_bucket")):
                    self.values[sample.name] = self.values.get(sample.name, 0.0) + sample.value
                if "position" in sample.labels and sample.name.endswith("_total"):
                    self.positions[int(sample.labels["position"])] = sample.value
                if "source" in sample.labels and sample.name.endswith("_total"):
                    counts = self.drafted if "draft_tokens" in sample.name else self.accepted
                    counts[sample.labels["source"], sample.labels["drafter"]] = sample.value

    def __getitem__(self, name: str) -> float:
        return self.values["dragoman_" + name]


def collect(registry: CollectorRegistry) -> Collected:
    return Collected(generate_latest(registry).decode())


@contextlib.asynccontextmanager
async def counted(**kwargs):
    registry = CollectorRegistry()
    instruments = PrometheusInstruments(registry, "target")
    async with serving(TextEngine(), instruments=instruments, adaptive=False, **kwargs) as (verifier, address):
        yield registry, verifier, address


async def test_the_counters_are_the_sums_of_what_the_sessions_tell():
    async with counted(plan=SLOW) as (registry, verifier, address), drafting(address):
        await drafters(verifier, 1)
        told = []
        for seed in range(3):
            _, finished = await text_of(address, request(SamplingParams(seed=seed)))
            told.append(finished)
        await eventually(lambda: collect(registry)["sessions_active"] == 0)
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
    assert found["round_trip_seconds_count"] > 0
    assert (found["plan_width"], found["plan_lookahead"]) == (8, 8)


def pad(accepted) -> list[int]:
    return [*accepted, *[0] * (16 - len(accepted))]


async def test_who_drafted_is_told_apart_and_adds_up():
    async with counted(plan=SLOW) as (registry, verifier, address):
        none = collect(registry)
        assert none["drafters_connected"] == 0
        assert none.drafted == none.accepted == dict.fromkeys(OTHERS, 0)
        await text_of(address, request(SamplingParams(), ignore_end=True))
        await eventually(lambda: collect(registry)["sessions_active"] == 0)
        alone = collect(registry)
        assert alone.drafted["lookup", ""] == alone["spec_decode_num_draft_tokens_total"] > 0
        assert set(alone.drafted) == OTHERS, "without a drafter nothing is a drafter's"
        async with drafting(address):
            await drafters(verifier, 1)
            assert collect(registry)["drafters_connected"] == 1
            text, _ = await text_of(address, request(SamplingParams(seed=1)))
            again = request(SamplingParams(seed=1), prediction=text[:20], received=text[:10])
            _, finished = await text_of(address, again)
            await eventually(lambda: collect(registry)["sessions_active"] == 0)
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


OTHERS = {("prediction", ""), ("lookup", ""), ("replay", "")}


def test_drafters_that_call_themselves_anything_are_few_series():
    registry = CollectorRegistry()
    metrics = VerifierMetrics(PrometheusInstruments(registry, "target"))
    for number in range(500):
        metrics.drafted(SourceKind.DRAFTER, f"name {number}", 2, 1)
    found = collect(registry)
    assert len(found.drafted) == len(OTHERS) + 64 + 1
    assert found.drafted["drafter", "others"] == 2 * (500 - 64) and found.accepted["drafter", "name 63"] == 1


async def test_every_figure_is_there_before_anything_happens():
    async with counted() as (registry, _, _):
        kinds = collect(registry).kinds
    named = {"counter": COUNTERS, "gauge": GAUGES, "histogram": HISTOGRAMS}
    assert kinds == {f"dragoman_{name}": kind for kind, names in named.items() for name in names}


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
            seen.append(collect(registry)["sessions_active"])

        await text_of(address, request(SamplingParams()), look)
        assert max(seen) == 1
        assert collect(registry)["spec_decode_num_drafts_total"] == 0


async def test_a_session_that_its_client_leaves_is_counted_as_far_as_it_came():
    async with counted() as (registry, verifier, address), stub_to(address) as stub:
        engine = verifier.engine
        assert isinstance(engine, TextEngine)
        stream = stub.Generate(request(SamplingParams(), max_tokens=0))
        async for response in stream:
            if isinstance(response, pb.GenerateResponse) and response.HasField("chunk"):
                break
        engine.gate.clear()  # or a busy client leaves after the end
        stream.cancel()
        await eventually(lambda: not verifier.sessions or not verifier.sessions[0].drafters.open)
        engine.gate.set()
        await eventually(lambda: collect(registry)["sessions_active"] == 0)
        found = collect(registry)
    assert found["generation_tokens_total"] > 0
    assert found["e2e_request_latency_seconds_count"] == 0


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
        assert found.process[PREFIX + "event_loop_tasks"] > 0
        alone = dragoman("generate", f"--verifier={address}", "--prompt=The heron", "--max-tokens=5")
        assert "no drafter is connected" in alone.stderr
        taken = dragoman("verifier", f"--model={tiny_llama}", "--listen=127.0.0.1:0", f"--metrics-port={port}")
    assert taken.returncode == 4 and "cannot serve metrics" in taken.stderr


def test_a_port_that_is_none():
    refused = dragoman("verifier", "--model=x", "--metrics-port=0")
    assert refused.returncode == 2


pytestmark = pytest.mark.timeout(120)


DASHBOARD = json.loads((Path(__file__).parent.parent.parent / "deploy" / "grafana.json").read_text())
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_the_dashboard_shows_what_there_is():
    """Every name in the Grafana dashboard is a metric; sessions, drafters, acceptance, plan and speed are on it."""
    shown = {name for expression in EXPRESSIONS for name in re.findall(r"\$\{prefix\}(\w+)", expression)}
    histograms = {f"{name}_bucket" for name in HISTOGRAMS}
    assert shown <= {f"{name}_total" for name in COUNTERS} | GAUGES | histograms
    assert {"sessions_active", "generation_tokens_total", "plan_width", "plan_lookahead"} <= shown
    assert {"spec_decode_num_accepted_tokens_total", "spec_decode_num_accepted_tokens_per_source_total"} <= shown
    assert "drafters_connected" in shown
    assert all(expression.count("dragoman_") == 0 for expression in EXPRESSIONS), "without the prefix's variable"


def test_the_dashboard_shows_plain_verifiers_and_those_on_ray_without_being_told():
    [prefix] = [variable for variable in DASHBOARD["templating"]["list"] if variable["name"] == "prefix"]
    assert {option["value"] for option in prefix["options"]} == {PREFIX, f"ray_{PREFIX}"}
    assert prefix["multi"] and prefix["current"]["value"] == [PREFIX, f"ray_{PREFIX}"]
    assert all(option["selected"] for option in prefix["options"])
    # What several values become, "(a|b)", matches in a regular expression only.
    for expression in EXPRESSIONS:
        assert expression.count("${prefix}") == len(re.findall(r'\{__name__=~"\$\{prefix\}\w+"\}', expression))


def test_two_verifiers_of_one_model_are_two_series_on_the_dashboard():
    """Also two of one name, which Prometheus tells apart by where it found them."""
    grouped = [re.findall(r"\bby \(([^)]*)\)", expression) for expression in EXPRESSIONS]
    assert all(grouped), "every figure is summed by something"
    kept = {frozenset(re.split(r",\s*", labels)) for groups in grouped for labels in groups}
    for named, scraped in (({"replica": "one"}, {"instance": "a:9100"}), ({"replica": "one"}, {"instance": "b:9100"})):
        for other in ({"replica": "two", "instance": "a:9100"}, {"replica": "one", "instance": "c:9100"}):
            mine = {"model_name": "target", **named, **scraped}
            theirs = {"model_name": "target", **other}
            assert all(any(mine.get(key) != theirs.get(key) for key in labels) for labels in kept)
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            assert {"{{replica}}", "{{instance}}"} <= set(re.findall(r"\{\{\w+\}\}", target["legendFormat"]))
    registries = [CollectorRegistry(), CollectorRegistry()]
    for registry, name in zip(registries, ("one", "two"), strict=True):
        VerifierMetrics(PrometheusInstruments(registry, "target", name))
    assert [collect(registry).replicas for registry in registries] == [{"one"}, {"two"}]
