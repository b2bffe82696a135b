"""What the gateway adds to the times of a gRPC client, and what streams that wait cost it.

Real processes; the target's forward pass alone is replaced by waiting (``benchmarks.replay``), so that its own noise
hides nothing. Requests go over gRPC and over HTTP by turns, and are compared pair by pair.

    python -m benchmarks.gateway_overhead --streams 32 --pairs 200 --rounds 10 --idle 200
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from benchmarks.command import run_command
from benchmarks.recording import RecordedText, save
from benchmarks.results import write_results
from dragoman.bench.endpoint import BenchEndpoint, TextSettings
from dragoman.bench.grpc_endpoint import GrpcEndpoint
from dragoman.bench.measurement import BenchRequest, Measurement
from dragoman.bench.openai_endpoint import OpenAIEndpoint
from dragoman.bench.percentiles import percentiles
from dragoman.bench.prompts import Route
from dragoman.dialling import Destination
from dragoman.processes import child, run_with_children
from language_models.config import ModelConfig
from language_models.tokenizer import TextTokenizer
from language_models.weights import resolve
from speculation.errors import InputError
from speculation.protocol.messages import Prompt

_RANKS = (25, 50, 75)
_WORDS = "The heron waits by the water, and the river flows to the sea. "


@dataclass(frozen=True, slots=True)
class Setup:
    """``step``: seconds of a session's verify step; sessions step one after the other, as on one card. ``streams``: at
    once, in each of so many ``rounds``. ``pairs``: of single requests. ``idle``: streams that wait."""

    target: str
    step: float
    tokens: int
    streams: int
    pairs: int
    rounds: int
    idle: int


def texts_to_replay(target: str, count: int, tokens: int) -> list[RecordedText]:
    """As long as is asked; all the same, but the prompts. Raises ModelError, InputError."""
    files = resolve(target)
    tokenizer = TextTokenizer.from_pretrained(files, ModelConfig.read(files).vocab_size)
    ids = tokenizer.encode(_WORDS * tokens)[:tokens]
    names = [tokenizer.vocab.text([token]).decode("latin-1") for token in ids]
    return [
        RecordedText(str(number), tokenizer.encode(f"{number}:"), ids, names, [[] for _ in ids])
        for number in range(count)
    ]


@dataclass(frozen=True, slots=True)
class Stack:
    """A verifier that replays, and a gateway in front of it."""

    verifier: str
    base_url: str
    gateway: psutil.Process

    def endpoints(self, tokens: int) -> tuple[BenchEndpoint, BenchEndpoint]:
        """gRPC, HTTP."""
        settings = TextSettings(max_tokens=tokens)
        http = OpenAIEndpoint(self.base_url, Route.COMPLETIONS, settings)
        return GrpcEndpoint(Destination(verifier=self.verifier), settings), http


@contextlib.asynccontextmanager
async def stack(recording: Path, setup: Setup, *, step: float) -> AsyncIterator[Stack]:
    """Raises DragomanError if one of them dies."""
    most = max(setup.streams, setup.idle) + 1
    options = [f"--recording={recording}", f"--target={setup.target}", f"--step={step}", "--no-lookup"]
    options.append(f"--max-sessions={most}")
    async with child("verifier", ["verifier", *options], module=("benchmarks.replay",)) as verifier:
        address = (await verifier.ready())["address"]
        options = [f"--verifier={address}", "--listen=127.0.0.1:0", f"--max-concurrent={most}"]
        async with child("gateway", ["gateway", *options]) as gateway:
            listening = (await gateway.ready())["address"]
            yield Stack(address, f"http://{listening}", psutil.Process(gateway.pid))


async def ask_all(endpoint: BenchEndpoint, numbers: Sequence[int]) -> list[Measurement]:
    """All at once."""
    return await asyncio.gather(*(endpoint.ask(BenchRequest(each, Prompt(text=str(each)))) for each in numbers))


async def compare(found: Stack, setup: Setup) -> dict[str, Any]:
    """Differences of pairs, in milliseconds: of one request alone, and of many at once."""
    grpc, http = found.endpoints(setup.tokens)
    alone: list[list[Measurement]] = []
    together: list[list[Measurement]] = []
    async with grpc, http:
        ways = (grpc, http)
        for way in ways:  # connections, and what is loaded at its first use
            await ask_all(way, range(setup.streams))
        for kept, repeats, streams in ((alone, setup.pairs, 1), (together, setup.rounds, setup.streams)):
            for number in range(repeats):
                order = ways if number % 2 else ways[::-1]
                measured = {way.backend: await ask_all(way, range(streams)) for way in order}
                kept += [list(pair) for pair in zip(measured[grpc.backend], measured[http.backend], strict=True)]
    return {
        "alone": _differences(alone),
        "together": _differences(together),
        "identical_texts": all(one.text == other.text for one, other in (*alone, *together)),
    }


def _differences(pairs: Sequence[Sequence[Measurement]]) -> dict[str, float]:
    """HTTP less gRPC: to the first token, and for each chunk after it (without drafts a chunk is a token)."""
    tpots = [(one.tpot, other.tpot) for one, other in pairs]
    return {
        **percentiles("ttft_added_ms", [(other.ttft - one.ttft) * 1000 for one, other in pairs], _RANKS),
        **percentiles("chunk_added_ms", [(b - a) * 1000 for a, b in tpots if a is not None and b is not None], _RANKS),
        **percentiles("grpc_ttft_ms", [one.ttft * 1000 for one, _ in pairs], _RANKS),
        **percentiles("grpc_tpot_ms", [a * 1000 for a, _ in tpots if a is not None], _RANKS),
    }


async def wait_idle(found: Stack, setup: Setup, *, settle: float) -> dict[str, Any]:
    """Memory of the gateway's process with so many streams open, over what it has after one. ``settle``: seconds."""
    _, http = found.endpoints(setup.tokens)
    async with http:
        before = found.gateway.memory_info().rss
        waiting = asyncio.ensure_future(ask_all(http, range(setup.idle)))
        try:
            await asyncio.wait([waiting], timeout=settle)
            held = found.gateway.memory_info().rss
            still = 0 if waiting.done() else setup.idle
        finally:
            waiting.cancel()
            await asyncio.wait([waiting])
    return {"idle_streams": still, "added_mib": (held - before) / (1 << 20)}


async def measure(setup: Setup, *, settle: float = 10.0) -> dict[str, Any]:
    """All of it. Raises DragomanError."""
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "recording.json"
        texts = texts_to_replay(setup.target, max(setup.streams, setup.idle), setup.tokens)
        save(recording, texts, {"target": setup.target})
        async with stack(recording, setup, step=setup.step) as found:
            figures = await compare(found, setup)
        async with stack(recording, setup, step=5.0) as found:
            figures |= await wait_idle(found, setup, settle=settle)
    return figures


def main(
    target: Annotated[str, typer.Option(help="Its tokenizer is used, no weights")] = "smollm2-135m",
    step_ms: Annotated[float, typer.Option(help="Of one session", min=0.0)] = 1.0,
    tokens: Annotated[int, typer.Option(help="Of each text", min=2)] = 32,
    streams: Annotated[int, typer.Option(help="At once", min=1)] = 32,
    pairs: Annotated[int, typer.Option(help="Of single requests", min=1)] = 200,
    rounds: Annotated[int, typer.Option(help="Of streams at once", min=1)] = 10,
    idle: Annotated[int, typer.Option(help="Streams that wait", min=1)] = 200,
    output: Annotated[Path | None, typer.Option(help="Write figures as JSON")] = None,
) -> None:
    """Compare, and print the figures."""
    if tokens > 1000:
        raise InputError("tokens", tokens, "is beyond the emulated context", remedy="give at most 1000")
    setup = Setup(
        target=target, step=step_ms / 1000, tokens=tokens, streams=streams, pairs=pairs, rounds=rounds, idle=idle
    )
    write_results(run_with_children(measure(setup)), output)


if __name__ == "__main__":
    run_command(main)
