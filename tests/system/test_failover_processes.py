"""A fleet of real processes that loses its members one after the other while texts run; every text stays the same."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dragoman import Chunk, Client, Completion, FleetClient, Prompt, SamplingParams
from dragoman.coordinator_client import CoordinatorClient
from dragoman.processes import ChildProcess, child
from tests.support.commands import dragoman
from tests.support.service_drivers import described

pytestmark = pytest.mark.process

PROMPT = Prompt(text="The heron")
ASK: dict[str, Any] = {"max_tokens": 450, "ignore_end": True}
SEEDS = (4, 5, 6, 7)


def sampling(seed: int) -> SamplingParams:
    return SamplingParams(temperature=0.8, seed=seed)


class NobodyServes(Exception):
    """The texts have ended, as they may on a busy machine, before anything happened to them."""


class Fleet:
    """A coordinator, verifiers by address, a drafter for all."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self._stack = stack
        self.verifiers: dict[str, ChildProcess] = {}
        self.clients: dict[str, Client] = {}

    async def start(self, model: Path, verifiers: int) -> None:
        self.steering = await self._start("coordinator", "--listen=127.0.0.1:0")
        self.coordinator = (await self.steering.ready())["address"]
        join = f"--coordinator={self.coordinator}"
        options = (f"--model={model}", "--listen=127.0.0.1:0", "--dtype=float32", "--threads=1", "--grace=50ms", join)
        started = [await self._start("verifier", *options, f"--name=replica-{n}") for n in range(verifiers)]
        drafting = await self._start("drafter", "--model=lookup", join)
        for process in started:
            address = (await process.ready())["address"]
            self.verifiers[address] = process
            self.clients[address] = await self._stack.enter_async_context(Client(address))
        await drafting.ready()
        for client in self.clients.values():
            await described(client, drafters=1)

    async def _start(self, command: str, *options: str) -> ChildProcess:
        return await self._stack.enter_async_context(child(command, [command, *options]))

    async def status(self) -> list[dict]:
        asked = await asyncio.to_thread(dragoman, "status", f"--coordinator={self.coordinator}", "--json")
        return json.loads(asked.stdout)["verifiers"]

    async def drain(self, *options: str) -> None:
        done = await asyncio.to_thread(dragoman, "drain", f"--coordinator={self.coordinator}", *options)
        assert done.returncode == 0, done.stderr

    async def serving(self) -> str:
        """The verifier that has the session."""
        for address, client in self.clients.items():
            if (await client.describe()).sessions:
                return address
        raise NobodyServes

    async def at_baseline(self) -> None:
        for client in self.clients.values():
            await described(client, sessions=0, kv_cache_bytes=0)

    def forget(self, address: str) -> ChildProcess:
        del self.clients[address]
        return self.verifiers.pop(address)


async def texts_with(client: FleetClient, fault: Callable[[], Awaitable[None]]) -> list[Completion]:
    """Texts written at once, in whose middle something happens."""
    tasks: list[asyncio.Future[None]] = []
    shown: list[list[Chunk]] = [[] for _ in SEEDS]

    def watch(index: int, chunk: Chunk) -> None:
        shown[index].append(chunk)
        if not tasks and len(shown[index]) == 10:
            tasks.append(asyncio.ensure_future(fault()))

    asked = (
        client.complete(PROMPT, sampling=sampling(seed), **ASK, on_chunk=partial(watch, index))
        for index, seed in enumerate(SEEDS)
    )
    texts = await asyncio.gather(*asked)
    try:
        await tasks[0]
    except NobodyServes:
        return await texts_with(client, fault)
    for text, chunks in zip(texts, shown, strict=True):
        assert b"".join(run.text for chunk in chunks for run in chunk.runs) == text.data
    return texts


async def test_texts_outlive_drained_killed_and_stopped_verifiers_and_the_coordinator(
    tiny_qwen2: Path,
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        fleet = Fleet(stack)
        await fleet.start(tiny_qwen2, verifiers=3)
        client = await stack.enter_async_context(FleetClient(fleet.coordinator))
        control = await stack.enter_async_context(CoordinatorClient(fleet.coordinator))
        any_one = next(iter(fleet.clients.values()))
        whole = [await any_one.complete(PROMPT, sampling=sampling(seed), **ASK, draft=False) for seed in SEEDS]
        assert len({text.data for text in whole}) == len(SEEDS)

        async def drained() -> None:
            address = await fleet.serving()
            await fleet.drain(address, "--wait")
            states = {member["address"]: member for member in await fleet.status()}
            assert states[address]["draining"] and states[address]["sessions"] == 0
            assert sum(member["draining"] for member in states.values()) == 1
            await fleet.drain(address, "--undo")

        async def handed_over() -> None:
            address = await fleet.serving()
            await control.drain(address, hand_over=True)
            await fleet.drain(address, "--hand-over", "--wait")
            await fleet.drain(address, "--undo")

        async def killed() -> None:
            fleet.forget(await fleet.serving()).kill()

        async def stopped_without_coordinator() -> None:
            address = await fleet.serving()  # which may have to be asked again
            fleet.steering.kill()
            await fleet.forget(address).stop()

        for fault in (drained, handed_over, killed, stopped_without_coordinator):
            texts = await texts_with(client, fault)
            for _ in range(5):
                if fault is not handed_over or any(text.resumes for text in texts):
                    break
                # They ended before the hand-over reached their verifier, which is still there to be asked again.
                texts = await texts_with(client, fault)
            for text, expected in zip(texts, whole, strict=True):
                assert text.data == expected.data and text.token_ids == expected.token_ids, fault.__name__
            resumes = sum(text.resumes for text in texts)
            assert resumes == 0 if fault is drained else resumes > 0, fault.__name__
            await fleet.at_baseline()
        assert len(fleet.clients) == 1


async def test_sixteen_texts_of_a_killed_verifier_are_finished_by_another(tiny_qwen2: Path):
    seeds, asked = range(16), {**ASK, "max_tokens": 200}
    async with contextlib.AsyncExitStack() as stack:
        fleet = Fleet(stack)
        await fleet.start(tiny_qwen2, verifiers=2)
        first, second = fleet.verifiers
        client = await stack.enter_async_context(FleetClient(fleet.coordinator))
        control = await stack.enter_async_context(CoordinatorClient(fleet.coordinator))
        alone = fleet.clients[second]
        whole = await asyncio.gather(
            *(alone.complete(PROMPT, sampling=sampling(seed), **asked, draft=False) for seed in seeds)
        )
        await control.drain(second)  # so that all of them are at the first one
        begun: set[int] = set()
        killing: list[asyncio.Future[bool]] = []

        async def kill() -> bool:
            await control.drain(second, undo=True)
            if (await fleet.clients[first].describe()).sessions < len(seeds):
                await control.drain(second)
                return False  # on a busy machine one had ended
            fleet.forget(first).kill()
            return True

        def watch(seed: int, chunk: Chunk) -> None:
            begun.add(seed)
            if len(begun) == len(seeds) and not killing:
                killing.append(asyncio.ensure_future(kill()))

        while not killing or not await killing.pop():
            begun.clear()
            texts = await asyncio.gather(
                *(
                    client.complete(PROMPT, sampling=sampling(seed), **asked, on_chunk=partial(watch, seed))
                    for seed in seeds
                )
            )
            assert [text.data for text in texts] == [text.data for text in whole]
            assert [text.token_ids for text in texts] == [text.token_ids for text in whole]
        assert all(text.resumes for text in texts)
        await fleet.at_baseline()


def test_generate_through_a_coordinator_and_its_errors(tiny_qwen2: Path):
    both = dragoman("generate", "--prompt=x", "--verifier=127.0.0.1:1", "--coordinator=127.0.0.1:1")
    assert both.returncode == 2 and "give one of the two" in both.stderr
    model = dragoman("generate", "--prompt=x", "--model=x")
    assert model.returncode == 2 and "--coordinator" in model.stderr

    async def ask() -> None:
        async with child("coordinator", ["coordinator", "--listen=127.0.0.1:0"]) as steering:
            at = f"--coordinator={(await steering.ready())['address']}"
            empty = await asyncio.to_thread(dragoman, "generate", "--prompt=x", at)
            assert empty.returncode == 4 and "no verifier is registered" in empty.stderr
            unknown = await asyncio.to_thread(dragoman, "drain", "nobody", at)
            assert unknown.returncode == 2 and "no verifier of this fleet" in unknown.stderr
            options = [f"--model={tiny_qwen2}", "--listen=127.0.0.1:0", "--dtype=float32", "--threads=1", at]
            async with child("verifier", ["verifier", *options]) as serving:
                address = (await serving.ready())["address"]
                more = ("--prompt=The heron", "--max-tokens=20", "--json")
                direct = await asyncio.to_thread(dragoman, "generate", f"--verifier={address}", *more)
                routed = await asyncio.to_thread(dragoman, "generate", at, *more)
                assert routed.returncode == 0, routed.stderr
                assert json.loads(routed.stdout)["text"] == json.loads(direct.stdout)["text"]
                chat = await asyncio.to_thread(dragoman, "chat", at, "--max-tokens=8", stdin="The heron\n/exit\n")
                assert chat.returncode == 0 and "tiny-qwen2" in chat.stderr
                other = await asyncio.to_thread(dragoman, "generate", "--prompt=x", at, "--model=gpt")
                assert other.returncode == 4 and "registered are tiny-qwen2" in other.stderr

    asyncio.run(ask())
