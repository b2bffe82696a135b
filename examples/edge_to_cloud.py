"""Edge to cloud on one machine: a verifier, a drafter some milliseconds away, a client; alone and drafted in turn.

    python examples/edge_to_cloud.py --round-trip 40

A relay in this process holds every byte between drafter and verifier back for half of the round trip. On real machines
leave it out: give the drafter the verifier's address.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from dragoman import Client
from dragoman.processes import child

PROMPT = "def fibonacci(n):"


class Relay:
    """Copies bytes both ways, each ``delay`` seconds late, as fast as they come."""

    def __init__(self, host: str, port: int, delay: float) -> None:
        self._there = host, port
        self._delay = delay
        self._copying: set[asyncio.Task[None]] = set()

    async def start(self) -> asyncio.Server:
        """Listens at a free port."""
        return await asyncio.start_server(self._connect, "127.0.0.1", 0)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._there)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._copy(source, sink))
            self._copying.add(task)
            task.add_done_callback(self._copying.discard)

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while data := await source.read(1 << 16):
            loop.call_later(self._delay, sink.write, data)
        loop.call_later(self._delay, sink.close)


async def run(target: str, drafter: str, round_trip: float, max_tokens: int) -> None:
    async with child("verifier", ["verifier", f"--model={target}", "--listen=127.0.0.1:0"]) as verifier:
        address = (await verifier.ready())["address"]
        host, _, port = address.rpartition(":")
        async with await Relay(host, int(port), round_trip / 2).start() as relay:
            near = f"127.0.0.1:{relay.sockets[0].getsockname()[1]}"
            async with child("drafter", ["drafter", f"--model={drafter}", f"--verifier={near}"]) as edge:
                await edge.ready()
                async with Client(address) as client:
                    alone = await client.complete(PROMPT, max_tokens=max_tokens, draft=False)
                    drafted = await client.complete(PROMPT, max_tokens=max_tokens)
    print(PROMPT + drafted.text)
    assert drafted.data == alone.data, "speculation never changes the text"
    print(f"\nround trip {round_trip * 1000:.0f} ms: the same {alone.completion_tokens} tokens")
    for name, done in (("alone", alone), ("drafted", drafted)):
        print(f"{name:8} {done.tokens_per_second or 0.0:6.1f} tokens/s, {done.tokens_per_step or 0.0:.2f} a step")


def main(
    target: str = "qwen2.5-coder-1.5b",
    drafter: str = "smollm2-135m",
    round_trip: Annotated[float, typer.Option(help="Milliseconds between drafter and verifier")] = 40.0,
    max_tokens: int = 64,
) -> None:
    """Compare the target alone with the same target and a distant drafter."""
    asyncio.run(run(target, drafter, round_trip / 1000, max_tokens))


if __name__ == "__main__":
    typer.run(main)
