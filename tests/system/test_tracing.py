"""Gateway, verifier and drafter as processes that send their spans to a collector, or to one that is away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from benchmarks.ports import free_port
from dragoman.client import Client
from dragoman.in_process import Dragoman
from dragoman.processes import ChildProcess, child
from speculation.sampling.params import SamplingParams
from tests.support.collectors import collecting
from tests.support.service_drivers import described

pytestmark = pytest.mark.process

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PROMPT = "one two three one two three one"
ROLES = ("gateway", "verifier", "drafter")


@dataclass
class Services:
    """By their roles."""

    processes: dict[str, ChildProcess]
    url: str

    async def text(self) -> str:
        body = {"prompt": PROMPT, "max_tokens": 24, "temperature": 0.9, "seed": 3, "ignore_eos": True}
        async with httpx.AsyncClient(base_url=self.url, timeout=60, trust_env=False) as http:
            headers = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
            response = await http.post("/v1/completions", json=body, headers=headers)
        assert response.status_code == 200, response.text
        return response.json()["choices"][0]["text"]

    async def stop(self) -> None:
        for process in self.processes.values():  # the front door first
            await process.stop()


@contextlib.asynccontextmanager
async def services(model: Path, *options: str) -> AsyncIterator[Services]:
    """``options``: of all three."""
    loaded = (f"--model={model}", "--listen=127.0.0.1:0", "--dtype=float32", "--threads=1", "--grace=50ms")
    async with contextlib.AsyncExitStack() as held:

        async def started(role: str, *arguments: str) -> tuple[ChildProcess, dict[str, str]]:
            process = await held.enter_async_context(child(role, [role, *arguments, *options]))
            return process, await process.ready()

        verifier, facts = await started("verifier", *loaded)
        at = f"--verifier={facts['address']}"
        (drafter, _), (gateway, front) = await asyncio.gather(
            started("drafter", "--model=lookup", at), started("gateway", "--listen=127.0.0.1:0", at)
        )
        async with Client(facts["address"]) as client:
            await described(client, drafters=1)
        processes = {"gateway": gateway, "verifier": verifier, "drafter": drafter}
        yield Services(processes, f"http://{front['address']}")


async def untraced(model: Path) -> str:
    """The same text, written by the target alone in this process."""
    sampling = SamplingParams(temperature=0.9, seed=3)
    async with Dragoman(target=str(model), dtype="float32", threads=1) as target:
        return (await target.complete(PROMPT, sampling=sampling, max_tokens=24, ignore_end=True)).text


async def test_three_processes_tell_one_collector_of_one_trace(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")  # so that what comes was sent as they stopped
    with collecting() as collector:
        async with services(tiny_llama, f"--otlp-traces-endpoint={collector.url}") as there:
            text = await there.text()
            assert collector.spans == []
            await there.stop()
            words = {role: process.last_words for role, process in there.processes.items()}
    (gateway,), (verifier,), (drafter,) = (collector.of(f"dragoman-{role}") for role in ROLES)
    assert {span.trace for span in collector.spans} == {TRACE}
    assert (gateway.parent, verifier.parent, drafter.parent) == (SPAN, gateway.id, verifier.id)
    assert verifier.events and len(drafter.events) <= len(verifier.events)
    assert verifier.attributes["gen_ai.usage.output_tokens"] == 24
    assert PROMPT.encode() not in collector.raw and text == await untraced(tiny_llama)
    assert not any("Traceback" in said or "span" in said for said in words.values()), words


async def test_a_collector_that_is_away_changes_no_text_and_stops_nobody(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
):
    plain = await untraced(tiny_llama)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    async with services(tiny_llama) as there:
        assert await there.text() == plain
        await there.stop()
        for process in there.processes.values():
            said = process.last_words
            assert process.exit_code == 0 and "spans are lost" in said and "Traceback" not in said, said
