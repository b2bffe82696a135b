"""SIGKILL, as it happens: real processes, real sockets, tiny real models with a long context.

Every fault ends in the same bytes, no stuck session, and KV memory back to its baseline.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dragoman.client import Client
from dragoman.processes import ChildProcess, child
from dragoman.taking_turns import TAKING_TURNS_OPTIONS
from speculation.errors import ConnectionFailedError, SessionError
from speculation.protocol.completion import Completion
from speculation.protocol.generation import Chunk
from speculation.protocol.messages import Prompt
from speculation.sampling.params import SamplingParams
from tests.support.service_drivers import PATIENCE, described

pytestmark = pytest.mark.process

PROMPT = Prompt(text="The heron")
SAMPLING = SamplingParams(temperature=0.7, seed=11)
#: Far more than any of these tests lets the target write.
ENDLESS = 15_000


def with_long_context(model: Path, path: Path) -> Path:
    """The tiny model with room for a text that outlives the start of a process."""
    shutil.copytree(model, path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 16_384}))
    return path


@pytest.fixture(scope="module")
def target(tiny_qwen2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_long_context(tiny_qwen2, tmp_path_factory.mktemp("long") / "target")


@pytest.fixture(scope="module")
def drafter_model(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_long_context(tiny_llama, tmp_path_factory.mktemp("long") / "drafter")


@contextlib.asynccontextmanager
async def service(name: str, *arguments: str) -> AsyncIterator[tuple[ChildProcess, dict[str, object]]]:
    async with child(name, [name, *arguments, "--dtype=float32", "--threads=1"]) as started:
        yield started, await started.ready()


def verifying(model: Path, listen: str = "127.0.0.1:0") -> contextlib.AbstractAsyncContextManager:
    # In turns, so that on few cores the drafter gets its own: only the speed depends on it.
    turns = (*TAKING_TURNS_OPTIONS, "--verify-threshold=0")  # these two hardly ever agree, and all drafts shall count
    return service("verifier", f"--model={model}", f"--listen={listen}", *turns)


def drafting(model: Path, address: object) -> contextlib.AbstractAsyncContextManager:
    return service("drafter", f"--model={model}", f"--verifier={address}")


class RunningText:
    """A text being written, and what was seen of it so far."""

    def __init__(self, client: Client) -> None:
        self.ids: list[int] = []
        self.data = b""
        self.drafted = 0  # bytes
        self._news = asyncio.Event()
        self.task = asyncio.create_task(
            client.complete(PROMPT, sampling=SAMPLING, max_tokens=ENDLESS, ignore_end=True, on_chunk=self._take)
        )

    def _take(self, chunk: Chunk) -> None:
        self.ids += chunk.token_ids
        self.data += b"".join(run.text for run in chunk.runs)
        self.drafted += sum(len(run.text) for run in chunk.runs if run.drafted)
        self._news.set()

    async def until(self, tokens: int = 0, drafted: int = 0) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.ids) < tokens or self.drafted < drafted:
                self._news.clear()
                await self._news.wait()

    async def stop(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


async def alone(client: Client, tokens: int) -> Completion:
    return await client.complete(PROMPT, sampling=SAMPLING, max_tokens=tokens, ignore_end=True, draft=False)


async def test_a_killed_drafter_costs_no_byte_and_its_successor_takes_over(target: Path, drafter_model: Path):
    async with verifying(target) as (_, said), Client(str(said["address"])) as client:
        async with drafting(drafter_model, said["address"]) as (drafting_process, _):
            text = RunningText(client)
            await text.until(tokens=40, drafted=40)
            drafting_process.kill()
            await described(client, sessions=1, drafters=0)
            await text.until(tokens=len(text.ids) + 20)
        before = text.drafted
        async with drafting(drafter_model, said["address"]):
            await text.until(drafted=before + 100)
            await text.stop()
        await described(client, sessions=0, kv_cache_bytes=0)
        reference = await alone(client, len(text.ids))
        assert text.ids == reference.token_ids
        assert reference.data.startswith(text.data)


async def test_a_killed_verifier_finds_its_drafter_again(target: Path, drafter_model: Path):
    async with contextlib.AsyncExitStack() as stack:
        verifier, said = await stack.enter_async_context(verifying(target))
        address = str(said["address"])
        await stack.enter_async_context(drafting(drafter_model, address))
        async with Client(address) as client:
            text = RunningText(client)
            await text.until(tokens=40, drafted=40)
            verifier.kill()
            with pytest.raises((ConnectionFailedError, SessionError)):
                await text.task
        await stack.enter_async_context(verifying(target, address))
        async with Client(address) as client:
            await described(client, drafters=1)
            again = await client.complete(PROMPT, sampling=SAMPLING, max_tokens=200, ignore_end=True)
            assert again.stats.accepted_tokens > 0
            seen = min(len(text.ids), 200)
            assert again.token_ids[:seen] == text.ids[:seen]
            assert again.token_ids == (await alone(client, 200)).token_ids
            await described(client, sessions=0, kv_cache_bytes=0)
