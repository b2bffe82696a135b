"""A fleet of real processes that loses its members one after the other while texts run; every text stays the same."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

from dragoman import Chunk, Client, Completion, FleetClient, Prompt, SamplingParams
from dragoman.processes import ChildProcess, child
from tests.service_drivers import described
from tests.test_cli import dragoman

PROMPT = Prompt(text="The heron")
ASK = {"sampling": SamplingParams(temperature=0.8, seed=4), "max_tokens": 300, "ignore_end": True}


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
        options = (f"--model={model}", "--listen=127.0.0.1:0", "--dtype=float32", "--threads=1", join)
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
        raise AssertionError("nobody serves")

    async def at_baseline(self) -> None:
        for client in self.clients.values():
            await described(client, sessions=0, kv_cache_bytes=0)

    def forget(self, address: str) -> ChildProcess:
        del self.clients[address]
        return self.verifiers.pop(address)


async def text_with(client: FleetClient, fault: Callable[[], Awaitable[None]]) -> Completion:
    """A text in whose middle something happens."""
    tasks: list[asyncio.Future[None]] = []
    shown: list[Chunk] = []

    def watch(chunk: Chunk) -> None:
        shown.append(chunk)
        if len(shown) == 10:
            tasks.append(asyncio.ensure_future(fault()))

    text = await client.complete(PROMPT, **ASK, on_chunk=watch)
    assert len(tasks) == 1
    await tasks[0]
    assert b"".join(run.text for chunk in shown for run in chunk.runs) == text.data
    return text


async def test_texts_outlive_verifiers_that_are_drained_killed_and_stopped_and_the_coordinator(tiny_qwen2: Path):
    async with contextlib.AsyncExitStack() as stack:
        fleet = Fleet(stack)
        await fleet.start(tiny_qwen2, verifiers=3)
        client = await stack.enter_async_context(FleetClient(fleet.coordinator))
        any_one = next(iter(fleet.clients.values()))
        whole = await any_one.complete(PROMPT, **ASK, draft=False)
        texts: dict[str, Completion] = {}

        async def drained() -> None:
            address = await fleet.serving()
            await fleet.drain(address, "--wait")
            states = {member["address"]: member for member in await fleet.status()}
            assert states[address]["draining"] and states[address]["sessions"] == 0
            assert sum(member["draining"] for member in states.values()) == 1
            await fleet.drain(address, "--undo")

        texts["drained"] = await text_with(client, drained)
        assert texts["drained"].resumes == 0, "it finished where it was"

        async def handed_over() -> None:
            address = await fleet.serving()
            await fleet.drain(address, "--hand-over", "--wait")
            await fleet.drain(address, "--undo")

        texts["handed over"] = await text_with(client, handed_over)

        async def killed() -> None:
            fleet.forget(await fleet.serving()).kill()

        texts["killed"] = await text_with(client, killed)

        async def stopped_without_coordinator() -> None:
            fleet.steering.kill()
            await fleet.forget(await fleet.serving()).stop()

        texts["stopped"] = await text_with(client, stopped_without_coordinator)
        assert [text.resumes for text in texts.values()] == [0, 1, 1, 1]
        for how, text in texts.items():
            assert text.data == whole.data and text.token_ids == whole.token_ids, how
        assert len(fleet.clients) == 1
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
