"""A fleet of real processes: coordinator, verifier and drafter from the command line; the coordinator is killed."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from dragoman.client import Client
from dragoman.processes import child
from speculation.protocol.generation import Chunk
from speculation.protocol.messages import Prompt
from speculation.sampling.params import SamplingParams
from tests.support.service_drivers import PATIENCE, described

pytestmark = pytest.mark.process


def dragoman(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dragoman", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=3 * PATIENCE, check=False)


async def test_a_killed_coordinator_costs_no_byte(tiny_qwen2: Path, tiny_llama: Path):
    async with contextlib.AsyncExitStack() as stack:
        steering = await stack.enter_async_context(child("coordinator", ["coordinator", "--listen=127.0.0.1:0"]))
        coordinator = (await steering.ready())["address"]
        common = (f"--coordinator={coordinator}", "--dtype=float32", "--threads=1", "--name=same")
        arguments = ["verifier", f"--model={tiny_qwen2}", "--listen=127.0.0.1:0", *common]
        verifier = await stack.enter_async_context(child("verifier", arguments))
        address = (await verifier.ready())["address"]
        drafter = await stack.enter_async_context(child("drafter", ["drafter", f"--model={tiny_llama}", *common]))
        await drafter.ready()
        client = await stack.enter_async_context(Client(address))

        await described(client, drafters=1)
        state = json.loads(dragoman("status", f"--coordinator={coordinator}", "--json").stdout)
        assert [member["name"] for kind in ("verifiers", "drafters") for member in state[kind]] == ["same", "same"]
        assert "same" in dragoman("top", f"--coordinator={coordinator}", "--once").stdout

        sampling = SamplingParams(temperature=0.8, seed=4)
        chunks: list[Chunk] = []

        def watch(chunk: Chunk) -> None:
            chunks.append(chunk)
            if len(chunks) == 10:
                steering.kill()

        prompt = Prompt(text="The heron")
        text = await client.complete(prompt, sampling=sampling, max_tokens=300, ignore_end=True, on_chunk=watch)
        alone = await client.complete(prompt, sampling=sampling, max_tokens=300, ignore_end=True, draft=False)
        assert text.data == alone.data and text.completion_tokens == 300
        # Nothing but the coordinator is gone.
        await described(client, sessions=0, kv_cache_bytes=0, drafters=1)
        assert dragoman("status", f"--coordinator={coordinator}").returncode == 4
