"""What a hostile drafter costs the others: the time between the chunks of texts, with it and without it in turn.

A verifier and an honest drafter in mutual TLS, clients with texts of a fixed length, ``benchmarks.hostile_drafters``
in a process of its own with a good certificate. The target alone writes the texts once; all others must be the same.

    python -m benchmarks.under_attack --target qwen2.5-coder-1.5b --device cuda:0 --output under_attack.json
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.certificates import Certificates, security_options
from benchmarks.clients import Asking
from benchmarks.command import run_command
from benchmarks.figures import percentiles
from benchmarks.hostile_drafters import Attack
from benchmarks.pair_processes import Serving, Side, drafting, serving
from benchmarks.prompts import load_prompts
from benchmarks.results import write_results
from speculation.errors import DragomanError
from speculation.protocol.messages import Prompt
from transport.identity import Role
from transport.security import Security

#: In place of an attack: none.
CALM = "calm"


@dataclass(frozen=True)
class Setup:
    """What is attacked, and for how long: each attack ``repeats`` times for ``seconds``, after as long without."""

    target: str
    drafter: str
    device: str
    drafter_device: str
    threads: int
    clients: int
    max_tokens: int
    seconds: float
    repeats: int


@dataclass
class Period:
    """What clients saw in a time with or without an attack. ``differing``: texts that were not the target's own."""

    gaps: list[float] = field(default_factory=list)
    tokens: int = 0
    differing: int = 0
    seconds: float = 0.0
    #: The last that the attacker said.
    said: str = ""


class Bench:
    """Clients of one verifier. ``expected``: what the target alone writes, by prompt."""

    def __init__(self, setup: Setup, asking: Asking, prompts: int) -> None:
        self._setup = setup
        self._asking = asking
        self._prompts = prompts
        self._next = 0
        self.expected: list[bytes] = []

    async def alone(self) -> None:
        """Every prompt once, without a draft."""
        for number in range(self._prompts):
            self.expected.append((await self._asking.ask(number, draft=False)).completion.data)

    async def period(self) -> Period:
        """Clients that ask one prompt after another; a text that has begun is ended."""
        period, began = Period(), time.perf_counter()

        async def client() -> None:
            while time.perf_counter() - began < self._setup.seconds:
                number = self._next % self._prompts
                self._next += 1
                served = await self._asking.ask(number, draft=True)
                period.gaps += served.gaps
                period.tokens += served.completion.completion_tokens
                period.differing += served.completion.data != self.expected[number]

        await asyncio.gather(*(client() for _ in range(self._setup.clients)))
        period.seconds = time.perf_counter() - began
        return period


@contextlib.asynccontextmanager
async def attacking(attack: str, address: str, security: Security, seconds: float) -> AsyncIterator[list[str]]:
    """A process that attacks for as long as the block runs. Yields what it has said, when it is over."""
    if attack == CALM:
        yield []
        return
    arguments = [attack, f"--verifier={address}", f"--seconds={seconds}", *security_options(security)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.hostile_drafters", *arguments, stdout=asyncio.subprocess.PIPE
    )
    said: list[str] = []
    try:
        yield said
        output, _ = await process.communicate()
        said += output.decode().splitlines()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@contextlib.asynccontextmanager
async def pair(setup: Setup, certificates: Certificates) -> AsyncIterator[Serving]:
    """A verifier, once its honest drafter is there. Raises DragomanError."""
    cloud, edge, client = (certificates.mutual(role) for role in (Role.VERIFIER, Role.DRAFTER, Role.CLIENT))
    target = Side(setup.device, threads=setup.threads, options=tuple(security_options(cloud)))
    drafter = Side(setup.drafter_device, threads=1, options=tuple(security_options(edge)))
    async with (
        serving(setup.target, target, security=client) as verifier,
        drafting([setup.drafter], verifier.address, drafter),
    ):
        yield verifier


async def measure(setup: Setup, prompts: list[Prompt], attacks: list[Attack], console: Console) -> list[dict[str, Any]]:
    """A row for each attack: figures of the times with it and of those without it just before."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        certificates = Certificates(Path(folder) / "certs")
        async with pair(setup, certificates) as verifier:
            asking = Asking(verifier.client, prompts, temperature=0.0, max_tokens=setup.max_tokens, ignore_end=True)
            bench = Bench(setup, asking, len(prompts))
            await bench.alone()
            await bench.period()
            for attack in attacks:
                security = certificates.mutual(Role.DRAFTER, f"hostile-{attack}")
                found: dict[str, list[Period]] = {CALM: [], attack: []}
                for _ in range(setup.repeats):
                    for kind, periods in found.items():
                        async with attacking(kind, verifier.address, security, setup.seconds + 1.0) as said:
                            periods.append(await bench.period())
                        periods[-1].said = "; ".join(said)
                rows.append(row_of(attack, found[CALM], found[attack]))
                console.print(rows[-1]["said"], highlight=False)
    return rows


def row_of(attack: Attack, calm: list[Period], attacked: list[Period]) -> dict[str, Any]:
    """Figures in milliseconds and tokens a second."""
    row: dict[str, Any] = {"attack": str(attack), "differing": sum(one.differing for one in (*calm, *attacked))}
    for name, periods in ((CALM, calm), ("attacked", attacked)):
        gaps = percentiles("gap_ms", [gap * 1000 for one in periods for gap in one.gaps])
        throughput = sum(one.tokens for one in periods) / sum(one.seconds for one in periods)
        row[name] = gaps | {"output_throughput": throughput}
    row["said"] = attacked[-1].said
    return row


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """A line an attack: gaps without it, and what it makes of them."""
    table = Table("attack", "gap p50", "p99", "ratio of p50", "p99", "tokens/s", "same text")
    for row in rows:
        calm, attacked = row[CALM], row["attacked"]
        ratios = (attacked[name] / calm[name] for name in ("median_gap_ms", "p99_gap_ms", "output_throughput"))
        table.add_row(
            row["attack"],
            f"{calm['median_gap_ms']:.1f} ms",
            f"{calm['p99_gap_ms']:.1f} ms",
            *(f"{ratio:.2f}" for ratio in ratios),
            "NO" if row["differing"] else "yes",
        )
    console.print(table)


def main(
    target: str = "smollm2-135m",
    drafter: str = "lookup",
    prompts: Annotated[Path | None, typer.Option(help="JSONL with prompt or messages in each line")] = None,
    task: str = "",
    limit: int = 8,
    max_tokens: int = 64,
    clients: Annotated[int, typer.Option(help="At once", min=1)] = 4,
    attack: Annotated[list[Attack] | None, typer.Option(help="May be repeated  [default: all]")] = None,
    seconds: Annotated[float, typer.Option(help="Of each time with and without an attack", min=1.0)] = 10.0,
    repeats: Annotated[int, typer.Option(help="Such times for each attack", min=1)] = 2,
    device: str = "auto",
    drafter_device: str = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads of the target; 0: all cores")] = 0,
    output: Annotated[Path | None, typer.Option(help="Where the JSON goes  [default: standard output]")] = None,
) -> None:
    """Measure; exit code 1 if a text differs."""
    console = Console(stderr=True)
    setup = Setup(
        target=target,
        drafter=drafter,
        device=device,
        drafter_device=drafter_device,
        threads=threads,
        clients=clients,
        max_tokens=max_tokens,
        seconds=seconds,
        repeats=repeats,
    )
    loaded = load_prompts(prompts, limit=limit, task=task)
    rows = asyncio.run(measure(setup, loaded, list(attack or Attack), console))
    show(rows, console)
    write_results({"setup": vars(setup), "rows": rows}, output)
    if any(row["differing"] for row in rows):
        raise DragomanError("texts differ from the target's own")


if __name__ == "__main__":
    run_command(main)
