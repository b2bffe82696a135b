"""A picture of `dragoman top` over a real fleet at work: two verifiers, three drafters, one of them far away.

python -m benchmarks.picture_of_top --output docs/top.svg
"""

from __future__ import annotations

import asyncio
import contextlib
import io
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.command import run_command
from benchmarks.fault_proxy import FaultProxy, LinkConditions
from benchmarks.prompts import load_prompts
from dragoman.coordinator_client import CoordinatorClient
from dragoman.fleet_client import FleetClient
from dragoman.fleet_view import fleet_view
from dragoman.processes import child
from protos.dragoman.v1 import dragoman_pb2 as pb
from transport.address import Address

WIDTH = 132
TEXTS = 4


async def fleet_at_work(target: str, drafter: str, prompts: Path, seconds: float) -> pb.StatusResponse:
    """What the coordinator says after so many seconds of writing."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(name: str, *arguments: str) -> str:
            ready = await (await stack.enter_async_context(child(name, [name, *arguments]))).ready()
            return str(ready.get("address", ""))

        coordinator = await start("coordinator", "--listen=127.0.0.1:0")
        joining = f"--coordinator={coordinator}"
        threads = "--threads=1"
        near = await start(
            "verifier", f"--model={target}", "--listen=127.0.0.1:0", joining, threads, "--name=gpu-box-1"
        )
        upstream = Address.parse(near, field="verifier")
        far = LinkConditions(0.02, 0.002, None)
        proxy = await stack.enter_async_context(FaultProxy(upstream.host, upstream.port, far))
        await start(
            "verifier",
            f"--model={target}",
            "--listen=127.0.0.1:0",
            joining,
            threads,
            "--name=gpu-box-2",
        )
        await start("drafter", f"--model={drafter}", joining, threads, "--name=edge-berlin")
        await start("drafter", "--model=lookup", joining, "--name=edge-lookup")
        await start("drafter", "--model=lookup", f"--verifier={proxy.address}", "--name=edge-sydney")
        client = await stack.enter_async_context(FleetClient(coordinator))
        writing = [
            asyncio.create_task(client.complete(prompt, max_tokens=400, ignore_end=True))
            for prompt in load_prompts(prompts, limit=TEXTS)
        ]
        await asyncio.sleep(seconds)
        async with CoordinatorClient(coordinator) as asking:
            status = await asking.status()
        for task in writing:
            task.cancel()
        await asyncio.gather(*writing, return_exceptions=True)
        return status


def main(
    output: Annotated[Path, typer.Option(help="SVG")],
    target: str = "smollm2-135m",
    drafter: str = "smollm2-135m",
    prompts: Path = Path("benchmarks/prompts.jsonl"),
    seconds: float = 12.0,
) -> None:
    """Draw."""
    status = asyncio.run(fleet_at_work(target, drafter, prompts, seconds))
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(fleet_view(status, width=WIDTH))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(console.export_svg(title="dragoman top"))


if __name__ == "__main__":
    run_command(main)
