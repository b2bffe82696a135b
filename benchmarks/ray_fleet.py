"""What Ray costs: the same fleet on Ray and started by hand, both there, asked in turn; and how it starts and ages.

    python -m benchmarks.ray_fleet --target smollm2-135m --drafter lookup --limit 16 --output ray_fleet.json

Both fleets are a coordinator, a verifier and a drafter with the same settings; while one writes, the other is idle.
Pair by pair the same prompt goes to both, first to the one, then to the other, so that a machine that gets slower or
faster is fair to both. Starting and ageing are measured with tiny models.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from benchmarks.command import run_command
from benchmarks.local_pair import resident_bytes
from benchmarks.prompts import load_prompts
from benchmarks.results import write_results
from drafter_service.loading import LOOKUP_MODEL
from dragoman.client import Client
from dragoman.demo import title
from dragoman.fleet_client import FleetClient
from dragoman.processes import child
from language_models.weights import resolve
from speculation.protocol.completion import Completion
from speculation.protocol.generation import Chunk
from speculation.protocol.messages import Prompt
from tests.support.service_drivers import described
from tests.support.tiny_models import tiny_llama, tiny_qwen2

PROMPTS = Path(__file__).with_name("prompts.jsonl")
ARMS = ("by_hand", "on_ray")
#: Sessions of the ageing run, how many run at once, and after how many memory is looked at.
SESSIONS, AT_ONCE, LOOK_EVERY = 500, 4, 50
#: Of both fleets: nothing that is adapted to figures, which would differ by chance.
PLAN = {"width": 8, "lookahead": 8, "span_tokens": 4}


def file_of(folder: Path, target: str, drafter: str, threads: int) -> Path:
    """A fleet file for one target and one drafter."""
    group = {"threads": threads, "dtype": "auto", "num_cpus": threads}
    fleet = {
        "coordinator": {"port": 50960},
        "targets": [group | {"name": "target", "model": target, "adaptive": False, "plan": PLAN}],
        "drafters": [group | {"name": "drafter", "model": drafter}],
    }
    path = folder / "fleet.yaml"
    path.write_text(yaml.safe_dump(fleet))
    return path


@dataclass(frozen=True, slots=True)
class RayAlone:
    """A Ray of the bench's own, known to nobody else on this machine."""

    folder: Path

    def fleet(self, *arguments: str) -> tuple[str, float]:
        """`dragoman fleet ...`: its standard output, and the seconds that it took."""
        own = {"DRAGOMAN_HOME": str(self.folder / "home"), "RAY_TMPDIR": str(self.folder), "RAY_ADDRESS": ""}
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "dragoman", "fleet", *arguments],
            env=os.environ | own,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout, time.perf_counter() - began


@contextlib.contextmanager
def ray_alone() -> Iterator[RayAlone]:
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        alone = RayAlone(Path(folder))
        try:
            yield alone
        finally:
            alone.fleet("down")


def actors_of(up: str) -> dict[str, dict[str, Any]]:
    return {actor["kind"]: actor for actor in json.loads(up)["actors"]}


@contextlib.asynccontextmanager
async def by_hand(target: str, drafter: str, threads: int) -> AsyncIterator[tuple[str, str]]:
    """The fleet as processes; addresses of its coordinator and verifier."""
    plan = [f"--{name.replace('_', '-')}={value}" for name, value in PLAN.items()]
    async with contextlib.AsyncExitStack() as stack:
        steering = await stack.enter_async_context(child("coordinator", ["coordinator", "--listen=127.0.0.1:0"]))
        coordinator = (await steering.ready())["address"]
        common = [f"--coordinator={coordinator}", f"--threads={threads}"]
        verifying = ["verifier", f"--model={target}", "--listen=127.0.0.1:0", "--no-adaptive", *plan, *common]
        verifier = await stack.enter_async_context(child("verifier", verifying))
        address = (await verifier.ready())["address"]
        drafting = await stack.enter_async_context(child("drafter", ["drafter", f"--model={drafter}", *common]))
        await drafting.ready()
        yield coordinator, address


@dataclass(slots=True)
class Timed:
    """A text, and when its chunks came."""

    gaps: list[float] = field(default_factory=list)
    _last: float | None = None

    def on_chunk(self, _: Chunk) -> None:
        now = time.perf_counter()
        if self._last is not None:
            self.gaps.append(now - self._last)
        self._last = now


async def timed_text(client: FleetClient, prompt: Prompt, *, max_tokens: int, draft: bool) -> tuple[Completion, Timed]:
    timed = Timed()
    completion = await client.complete(
        prompt, max_tokens=max_tokens, ignore_end=True, draft=draft, on_chunk=timed.on_chunk
    )
    return completion, timed


async def compare(coordinators: dict[str, str], prompts: list[Prompt], max_tokens: int, console: Console) -> list[dict]:
    """Every prompt to both arms, drafted and not; the order turns."""
    rows = []
    async with contextlib.AsyncExitStack() as stack:
        clients = {arm: await stack.enter_async_context(FleetClient(coordinators[arm])) for arm in ARMS}
        for arm in ARMS:
            await timed_text(clients[arm], prompts[0], max_tokens=8, draft=True)
        for number, prompt in enumerate(prompts):
            row: dict[str, Any] = {"prompt": title(prompt)}
            texts = set()
            for draft in (False, True):
                for arm in ARMS if number % 2 else ARMS[::-1]:
                    completion, timed = await timed_text(clients[arm], prompt, max_tokens=max_tokens, draft=draft)
                    texts.add(completion.data)
                    row[f"{arm}_{'drafted' if draft else 'alone'}"] = {
                        "output_throughput": completion.completion_tokens / completion.e2el,
                        "steps": completion.stats.steps,
                        "step_p50_ms": statistics.median(timed.gaps) * 1000,
                        "overhead_p50_ms": completion.stats.overhead_p50_seconds * 1000,
                    }
            row["identical"] = len(texts) == 1
            rows.append(row)
            console.print(f"{number + 1} of {len(prompts)}: {ratio(row, 'alone'):.3f} {ratio(row, 'drafted'):.3f}")
    return rows


def ratio(row: dict[str, Any], kind: str) -> float:
    """Tokens/s on Ray over those by hand."""
    return float(row[f"on_ray_{kind}"]["output_throughput"] / row[f"by_hand_{kind}"]["output_throughput"])


def added(row: dict[str, Any], kind: str, figure: str) -> float:
    """Milliseconds per step on Ray beyond those by hand."""
    return float(row[f"on_ray_{kind}"][figure] - row[f"by_hand_{kind}"][figure])


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the prompts."""
    found: dict[str, Any] = {"identical": all(row["identical"] for row in rows)}
    for kind in ("alone", "drafted"):
        found[f"median_throughput_ratio_{kind}"] = statistics.median(ratio(row, kind) for row in rows)
        for figure in ("step_p50_ms", "overhead_p50_ms"):
            found[f"median_added_{figure}_{kind}"] = statistics.median(added(row, kind, figure) for row in rows)
    return found


async def age(actors: dict[str, dict[str, Any]], console: Console) -> dict[str, Any]:
    """Resident memory of every actor while SESSIONS texts are written, AT_ONCE at a time."""
    sizes: dict[str, list[float]] = {kind: [] for kind in actors}
    prompts = [Prompt(text=f"The heron {word}") for word in ("waits", "stands", "is quick", "swims")]
    async with (
        FleetClient(actors["coordinator"]["address"]) as client,
        Client(actors["verifier"]["address"]) as verifier,
    ):
        await described(verifier, drafters=1)
        for done in range(0, SESSIONS, AT_ONCE):
            if done % LOOK_EVERY < AT_ONCE:
                for kind, actor in actors.items():
                    sizes[kind].append(resident_bytes(actor["pid"]) / 2**20)
            texts = (client.complete(prompt, max_tokens=60, ignore_end=True) for prompt in prompts[:AT_ONCE])
            await asyncio.gather(*texts)
        await described(verifier, sessions=0, kv_cache_bytes=0)
    for kind, actor in actors.items():
        sizes[kind].append(resident_bytes(actor["pid"]) / 2**20)
        console.print(f"{kind}: {', '.join(f'{size:.0f}' for size in sizes[kind])} MiB", highlight=False)
    # What Python and torch keep for reuse comes in the first hundred sessions.
    settled = 100 // LOOK_EVERY
    growth = {kind: size[-1] - size[settled] for kind, size in sizes.items()}
    return {"sessions": SESSIONS, "resident_mib": sizes, "growth_mib_after_100_sessions": growth}


def start_and_age(console: Console) -> dict[str, Any]:
    """`fleet up` with tiny models, from nothing and on a Ray that runs; then the ageing."""
    with tempfile.TemporaryDirectory() as folder, ray_alone() as alone:
        target, drafter = tiny_qwen2(Path(folder) / "tiny-qwen2"), tiny_llama(Path(folder) / "tiny-llama")
        path = str(file_of(Path(folder), str(target), str(drafter), 1))
        up, cold = alone.fleet("up", "-c", path, "--json")
        address = json.loads(up)["ray"]
        _, again = alone.fleet("up", "-c", path, "--json")
        aged = asyncio.run(age(actors_of(up), console))
        for size in ("target=0", "drafters=0"):
            alone.fleet("scale", size, "-c", path, "--grace=0s", f"--address={address}")
        _, warm = alone.fleet("up", "-c", path, "--json")
        return {"up_seconds": {"no_ray": cold, "ray_runs": warm, "fleet_runs": again}, "ageing": aged}


async def compare_fleets(
    target: str, drafter: str, prompts: list[Prompt], *, max_tokens: int, threads: int, console: Console
) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder, ray_alone() as alone:
        up, _ = await asyncio.to_thread(
            alone.fleet, "up", "-c", str(file_of(Path(folder), target, drafter, threads)), "--json"
        )
        actors = actors_of(up)
        async with by_hand(target, drafter, threads) as (coordinator, verifier):
            for address in (verifier, actors["verifier"]["address"]):
                async with Client(address) as client:
                    await described(client, drafters=1)
            coordinators = {"by_hand": coordinator, "on_ray": actors["coordinator"]["address"]}
            return await compare(coordinators, prompts, max_tokens, console)


def main(
    target: str = "smollm2-135m",
    drafter: str = "lookup",
    prompts: Annotated[Path, typer.Option(help="JSONL with prompt or messages in each line")] = PROMPTS,
    limit: int = 16,
    max_tokens: int = 64,
    threads: Annotated[int, typer.Option(help="CPU threads of each model")] = 1,
    ageing: Annotated[bool, typer.Option(help="Starting and ageing as well, with tiny models")] = True,
    output: Annotated[Path | None, typer.Option(help="Where the JSON goes  [default: standard output]")] = None,
) -> None:
    """Compare, pair by pair."""
    console = Console(stderr=True)
    # Folders: the actors' cache is another one.
    folders = {model: model if model == LOOKUP_MODEL else resolve(model).source for model in (target, drafter)}
    asked = load_prompts(prompts, limit=limit)
    comparing = compare_fleets(
        folders[target], folders[drafter], asked, max_tokens=max_tokens, threads=threads, console=console
    )
    rows = asyncio.run(comparing)
    setup = {"target": target, "drafter": drafter, "threads": threads, "max_tokens": max_tokens}
    found: dict[str, Any] = {"setup": setup, "summary": summary(rows)}
    if ageing:
        found |= start_and_age(console)
    console.print({name: value for name, value in found.items() if name != "ageing"})
    write_results(found | {"prompts": rows}, output)


if __name__ == "__main__":
    run_command(main)
