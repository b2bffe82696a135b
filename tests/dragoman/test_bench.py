"""`dragoman bench` against a real gateway, verifier and fleet: what it tells, what it writes, and how it ends."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
from typer.testing import CliRunner, Result

from dragoman.bench.figures import METRICS
from dragoman.cli import app
from dragoman.gateway_backend import verifier_backend
from gateway.settings import GatewaySettings
from speculation.errors import DragomanError
from tests.support.certificates import TestAuthority
from tests.support.coordinators import coordinating
from tests.support.gateways import MODEL, front, gateway_to, joined, registered
from tests.support.service_drivers import WAITING, baseline, drafters, drafting, serving
from tests.support.terminals import CTRL_C, on_terminal
from tests.support.text_engine import TextEngine
from transport.identity import Identity, Role
from transport.tokens import new_token

#: The keys of `vllm bench serve --save-result` that follow from texts.
KEYS = {
    "date", "backend", "model_id", "num_prompts", "request_rate", "burstiness", "max_concurrency",
    "duration", "completed", "failed", "total_input_tokens", "total_output_tokens",
    "request_throughput", "request_goodput", "output_throughput", "total_token_throughput",
    *(f"{figure}_{metric}_ms" for figure in ("mean", "median", "std", "p99") for metric in METRICS),
    "spec_decode_acceptance_rate", "spec_decode_acceptance_length", "spec_decode_num_drafts",
    "spec_decode_draft_tokens", "spec_decode_accepted_tokens", "spec_decode_per_position_acceptance_rates",
}  # fmt: skip
FEW = ("--num-prompts=5", "--max-tokens=20", "--ignore-eos", "--temperature=0.8")


async def bench(*arguments: str) -> Result:
    """In a thread of its own, with an event loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, app, ["bench", *arguments])


async def found_by(*arguments: str, code: int = 0) -> dict[str, Any]:
    """The JSON object of a run that ends with this exit code."""
    done = await bench(*arguments, "--json")
    assert done.exit_code == code, (done.output, done.exception)
    return json.loads(done.stdout)


@pytest.mark.parametrize("route", ["/v1/completions", "/v1/chat/completions"])
async def test_a_gateway_is_measured_over_both_routes(route: str):
    async with front(plan=WAITING, adaptive=False) as found, drafting(found.verifier_address):
        await drafters(found.verifier, 1)
        told = await found_by(f"--base-url={found.url}", f"--endpoint={route}", *FEW, "--max-concurrency=2")
        assert told.keys() >= KEYS
        assert (told["completed"], told["failed"], told["total_output_tokens"]) == (5, 0, 100)
        assert told["backend"] == ("openai" if route == "/v1/completions" else "openai-chat")
        assert (told["model_id"], told["max_concurrency"], told["request_rate"]) == (MODEL, 2, "inf")
        assert told["request_goodput"] is None and told["output_throughput"] == 100 / told["duration"]
        assert 0 < told["mean_ttft_ms"] < told["mean_e2el_ms"] and told["p99_itl_ms"] > 0
        steps = told["spec_decode_num_drafts"]
        assert told["spec_decode_acceptance_length"] == pytest.approx(100 / steps)
        assert told["spec_decode_accepted_tokens"] > 0
        positions = told["spec_decode_per_position_acceptance_rates"]
        assert sum(positions) * steps == pytest.approx(told["spec_decode_accepted_tokens"])
        assert told["client"]["cpus"] > 0 and "compare" not in told


async def test_a_verifier_and_a_fleet_are_measured_over_grpc():
    engine = TextEngine()
    async with serving(engine) as (verifier, address):
        told = await found_by(f"--verifier={address}", *FEW, "--request-rate=500", "--burstiness=inf", "--seed=3")
        assert told.keys() >= KEYS and (told["backend"], told["model_id"]) == ("dragoman", MODEL)
        assert (told["completed"], told["request_rate"], told["burstiness"]) == (5, 500, "inf")
        await baseline(verifier, engine)
    async with coordinating() as (server, at), joined(at, TextEngine(), "v"):
        await registered(server, 1)
        told = await found_by(f"--coordinator={at}", *FEW, "--num-warmups=0")
        assert (told["completed"], told["total_output_tokens"]) == (5, 100)


async def test_what_is_asked_reaches_the_verifier(tmp_path: Path):
    dataset = tmp_path / "one.jsonl"
    dataset.write_text('{"prompt": "a story: "}\n')
    async with front() as found:
        ask = (f"--dataset={dataset}", "--num-prompts=3", "--max-tokens=7", "--ignore-eos")
        over_http = await found_by(f"--base-url={found.url}/v1/", *ask)
        over_grpc = await found_by(f"--verifier={found.verifier_address}", *ask)
        for told in (over_http, over_grpc):
            assert told["total_output_tokens"] == 21
        assert over_http["total_input_tokens"] == over_grpc["total_input_tokens"] > 0


@pytest.mark.parametrize("over", ["http", "grpc"])
async def test_each_text_is_compared_with_the_targets_own(over: str, tmp_path: Path):
    plot, saved = tmp_path / "b.png", tmp_path / "b.json"
    async with front(plan=WAITING, adaptive=False) as found, drafting(found.verifier_address):
        await drafters(found.verifier, 1)
        where = f"--base-url={found.url}" if over == "http" else f"--verifier={found.verifier_address}"
        told = await found_by(where, *FEW, "--compare=no-draft", f"--plot={plot}", f"--save-result={saved}")
        compared = told["compare"]
        assert (compared["pairs"], compared["identical_texts"], len(compared["speed_ups"])) == (5, 5, 5)
        assert compared["worst_speed_up"] == min(compared["speed_ups"]) <= compared["p25_speed_up"]
        assert compared["p25_speed_up"] <= compared["median_speed_up"] <= compared["p75_speed_up"]
        assert told["spec_decode_draft_tokens"] > 0 and compared["no_draft"]["spec_decode_draft_tokens"] == 0
        assert told["completed"] == compared["no_draft"]["completed"] == 5
        assert matplotlib.image.imread(plot).std() > 0.1
        written = json.loads(saved.read_text())
        assert written.items() >= told.items() and written["output_lens"] == [20] * 5 and len(written["itls"]) == 5


async def test_the_terminal_shows_vllms_arrangement(tmp_path: Path):
    plot = tmp_path / "plot.svg"
    async with front() as found:
        ask = (f"--base-url={found.url}", *FEW, f"--plot={plot}", "--metric-percentiles=50,99.9")
        done = await bench(
            *ask, "--percentile-metrics=ttft,itl", "--goodput=ttft:60000 tpot:60000", "--compare=no-draft"
        )
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "============ Serving Benchmark Result ============" and lines[-1] == "=" * 50
    assert "---------------Time to First Token----------------" in lines
    shown = {line[:41].rstrip(" :"): line[41:] for line in lines if line[41:]}
    assert shown["Successful requests"] == "5" and shown["Total generated tokens"] == "100"
    assert shown["Identical texts"] == "5 of 5" and re.fullmatch(r"\d+\.\d\dx", shown["Median speed-up"])
    assert float(shown["P99.9 ITL (ms)"]) >= float(shown["P50 ITL (ms)"]) and "Mean TPOT (ms)" not in shown
    assert float(shown["Request goodput (req/s)"]) == float(shown["Request throughput (req/s)"])
    assert "<svg" in plot.read_text()


async def test_a_goal_that_nobody_keeps_leaves_no_goodput():
    async with front(TextEngine(step_seconds=0.002)) as found:
        assert (await found_by(f"--base-url={found.url}", *FEW, "--goodput=e2el:1"))["request_goodput"] == 0


async def test_requests_that_fail_are_counted_told_and_make_the_exit_code_1():
    settings = GatewaySettings(max_concurrent=1, max_queue=0)
    async with front(TextEngine(step_seconds=0.01), settings=settings) as found:
        done = await bench(f"--base-url={found.url}", *FEW)
        assert done.exit_code == 1 and "requests failed:" in done.stdout and "429" in done.stdout
        assert "lower --max-concurrency" in done.stdout
        told = await found_by(f"--base-url={found.url}", *FEW, code=1)
        assert told["failed"] > 0 and told["completed"] + told["failed"] == 5


async def failing(*arguments: str) -> DragomanError:
    """What a run ends with before it measured anything."""
    done = await bench(*arguments)
    assert isinstance(done.exception, DragomanError), (done.output, done.exception)
    assert done.stdout == "" and "\n" not in done.exception.message
    return done.exception


async def test_keys_and_certificates_are_taken_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ours = TestAuthority(tmp_path / "ours")
    secret, token = new_token(Identity(Role.CLIENT, "anna"))
    (tmp_path / "tokens").write_text(f"{token.line}\n")
    monkeypatch.setenv("BENCH_KEY", secret)
    monkeypatch.setenv("WRONG_KEY", "dragoman-wrong")
    guarded = ours.one_way().model_copy(update={"tokens": str(tmp_path / "tokens")})
    async with (
        serving(TextEngine()) as (_, at),
        verifier_backend(at) as backend,
        gateway_to(backend, security=guarded) as (_, address),
        gateway_to(backend, security=ours.mutual(Role.VERIFIER)) as (_, mutual),
    ):
        ask = (f"--base-url=https://{address}", *FEW)
        trusting = (*ask, f"--tls-ca={ours.ca}")
        assert (await found_by(*trusting, "--api-key-env=BENCH_KEY"))["completed"] == 5
        refused = await failing(*trusting, "--api-key-env=WRONG_KEY")
        assert refused.exit_code == 7 and "401" in refused.message and "--api-key-env" in refused.remedy
        unknown = await failing(*ask, "--api-key-env=BENCH_KEY")
        assert unknown.exit_code == 7 and "--tls-ca" in unknown.remedy
        own = ours.mutual(Role.CLIENT)
        files = (f"--tls-ca={own.tls_ca}", f"--tls-cert={own.tls_cert}", f"--tls-key={own.tls_key}")
        assert (await found_by(f"--base-url=https://{mutual}", *FEW, *files))["completed"] == 5


@pytest.mark.process
async def test_ctrl_c_shows_what_was_measured_so_far():
    async with front(TextEngine(step_seconds=0.02)) as found:
        ask = ("bench", f"--base-url={found.url}", "--num-prompts=40", "--max-tokens=20", "--ignore-eos")
        async with on_terminal(*ask, "--max-concurrency=1", lines=60) as (terminal, process):
            await terminal.until(lambda: re.search(r"measuring .*[1-9]%", terminal.text))
            terminal.type(CTRL_C)
            assert await process.wait() == 130
            await terminal.shows("of 40 texts were measured")
            completed = re.search(r"Successful requests: +(\d+)", terminal.text)
            assert completed is not None and 0 < int(completed[1]) < 40
            assert "Traceback" not in terminal.text and "measuring" not in terminal.text
        await baseline(found.verifier, found.engine)
