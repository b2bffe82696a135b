"""A link to a drafter that is gone for a while: whether the text goes on, and how soon drafts are back.

A verifier, and a drafter behind the fault proxy, as processes; one client has the same text written again and again.
The target alone writes it first; all others must be the same.

    python -m benchmarks.outage --target smollm2-135m --drafter smollm2-135m --seconds 20
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.command import run_command
from benchmarks.fault_proxy import FaultProxy, LinkConditions
from benchmarks.pair_processes import Side, drafting, serving
from benchmarks.results import write_results
from dragoman.client import Client
from speculation.errors import DragomanError
from speculation.protocol.generation import Chunk
from speculation.sampling.params import SamplingParams
from speculation.source import SourceKind
from transport.address import Address


def _refused(proxy: FaultProxy) -> None:
    proxy.refuse()
    proxy.reset()


#: What happens to the link: nothing passes and nobody is told, or connections break and new ones are refused.
FAULTS: Final[Mapping[str, Callable[[FaultProxy], None]]] = {
    "silent": FaultProxy.cut,
    "refused": _refused,
}
PROMPT: Final = "The old lighthouse keeper wrote in his diary:"
#: Seconds in which drafts must be back at all.
_PATIENCE: Final = 60.0
#: Chunks with guesses of the drafter, before the link goes.
_DRAFTED: Final = 20


def _unseen(chunk: Chunk) -> None:
    """Of the text that all others are compared with."""


@dataclass
class Watched:
    """When chunks came, and which of them brought accepted guesses of the drafter. Seconds of one clock."""

    chunks: list[float] = field(default_factory=list)
    drafted: list[float] = field(default_factory=list)

    def see(self, chunk: Chunk) -> None:
        now = time.monotonic()
        self.chunks.append(now)
        if any(run.drafted and run.source is SourceKind.DRAFTER for run in chunk.runs):
            self.drafted.append(now)

    def longest_gap(self, begin: float, end: float) -> float:
        """Between two chunks, of which that time has a part."""
        gaps = [after - before for before, after in itertools.pairwise(self.chunks) if after >= begin and before <= end]
        return max(gaps, default=0.0)


@dataclass(frozen=True)
class Outage:
    """``drafts_back``: seconds from the link's return to the first chunk with guesses of the drafter; None: never.

    ``longest_gap``: seconds without a chunk while the link was gone, and ``usual_gap`` before. ``differing``: texts, of
    ``texts``, that are not the target's own.
    """

    fault: str
    seconds: float
    drafts_back: float | None
    longest_gap: float
    usual_gap: float
    texts: int
    differing: int


async def outage(client: Client, proxy: FaultProxy, fault: str, *, seconds: float, max_tokens: int) -> Outage:
    """One of ``FAULTS`` for so many seconds, once drafts come. Raises DragomanError."""
    seen = Watched()

    async def text(*, draft: bool = True) -> bytes:
        sampling = SamplingParams(temperature=0.8, seed=1)
        options: dict[str, Any] = {"sampling": sampling, "max_tokens": max_tokens, "ignore_end": True, "draft": draft}
        return (await client.complete(PROMPT, on_chunk=seen.see if draft else _unseen, **options)).data

    own, texts = await text(draft=False), []

    async def writing() -> None:
        while True:
            texts.append(await text())

    async def until(done: Callable[[], bool], patience: float) -> None:
        end = time.monotonic() + patience
        while not done() and not writer.done() and time.monotonic() < end:
            await asyncio.sleep(0.002)
        if writer.done():
            writer.result()

    writer = asyncio.create_task(writing())
    try:
        await until(lambda: len(seen.drafted) > _DRAFTED, _PATIENCE)
        if len(seen.drafted) <= _DRAFTED:
            raise DragomanError(
                f"of {len(seen.chunks)} chunks {len(seen.drafted)} were drafted", remedy="try another pair"
            )
        gone, first = time.monotonic(), seen.chunks[0]
        FAULTS[fault](proxy)
        await until(lambda: False, seconds)
        back = time.monotonic()
        proxy.restore()
        proxy.refuse(False)
        await until(lambda: bool(seen.drafted) and seen.drafted[-1] > back, _PATIENCE)
        written = len(texts)
        await until(lambda: len(texts) > written, _PATIENCE)  # that one to its end
    finally:
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
    again = next((at for at in seen.drafted if at > back), None)
    return Outage(
        fault,
        seconds,
        drafts_back=again - back if again is not None else None,
        longest_gap=seen.longest_gap(gone, back),
        usual_gap=seen.longest_gap(first, gone),
        texts=len(texts),
        differing=sum(each != own for each in texts),
    )


async def measure(
    target: str, drafter: str, side: Side, *, seconds: float, max_tokens: int, delay: float, patience: float
) -> list[Outage]:
    """Each fault once. ``delay``: of the link, one way; ``patience``: of the target for its drafter. Seconds. Raises
    DragomanError."""
    async with serving(target, side, "--no-adaptive", "--no-lookup", f"--patience={1000 * patience:g}") as served:
        at = Address.parse(served.address, field="verifier")
        async with (
            FaultProxy(at.host, at.port, LinkConditions(delay)) as proxy,
            drafting([drafter], proxy.address, side),
        ):
            options: dict[str, Any] = {"seconds": seconds, "max_tokens": max_tokens}
            return [await outage(served.client, proxy, fault, **options) for fault in FAULTS]


def show(found: list[Outage], console: Console) -> None:
    """One row for each fault."""
    table = Table(box=None, pad_edge=False)
    for heading in ("link is", "for", "drafts back after", "longest gap", "before", "texts", "differ"):
        table.add_column(heading, justify="left" if heading == "link is" else "right")
    for one in found:
        back = f"{one.drafts_back:.2f} s" if one.drafts_back is not None else "never"
        gaps = [f"{1000 * gap:.0f} ms" for gap in (one.longest_gap, one.usual_gap)]
        table.add_row(one.fault, f"{one.seconds:g} s", back, *gaps, str(one.texts), str(one.differing))
    console.print(table)


def main(
    target: str = "smollm2-135m",
    drafter: str = "smollm2-135m",
    seconds: Annotated[float, typer.Option(help="That the link is gone", min=0.1)] = 20.0,
    max_tokens: Annotated[int, typer.Option(help="Tokens of a text", min=1)] = 200,
    delay: Annotated[float, typer.Option(help="Of the link, one way, in milliseconds", min=0.0)] = 5.0,
    patience: Annotated[float, typer.Option(help="Of the target for its drafter, in milliseconds", min=0.0)] = 100.0,
    device: str = "auto",
    dtype: str = "auto",
    threads: Annotated[int, typer.Option(min=0)] = 1,
    output: Annotated[Path | None, typer.Option(help="JSON")] = None,
) -> None:
    """Take the link to the drafter away for a while."""
    side = Side(device=device, dtype=dtype, threads=threads)
    found = asyncio.run(
        measure(
            target, drafter, side, seconds=seconds, max_tokens=max_tokens, delay=delay / 1000, patience=patience / 1000
        )
    )
    show(found, Console())
    if output is not None:
        write_results({"outages": [asdict(one) for one in found]}, output)
    if any(one.differing or one.drafts_back is None for one in found):
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(main)
