"""A link to a drafter that is gone for a while: whether the text goes on, and how soon drafts are back.

A verifier, and a drafter behind the fault proxy or in a network of its own, as processes; one client has the same text
written again and again. The target alone writes it first; all others must be the same. Drafts are back once a step
verifies one; when one is accepted first is a matter of the pair, and of luck.

    python -m benchmarks.outage --target smollm2-135m --drafter smollm2-135m --seconds 20
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Self

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.command import run_command
from benchmarks.fault_proxy import FaultProxy, LinkConditions
from benchmarks.namespaces import Road, check_possible, two_hosts
from benchmarks.pair_processes import Side, drafting, serving
from benchmarks.results import write_results
from dragoman.client import Client
from speculation.errors import DragomanError
from speculation.protocol.generation import Chunk, GenerationRequest
from speculation.protocol.messages import Prompt
from speculation.sampling.params import SamplingParams
from transport.address import Address


@dataclass(frozen=True)
class Link:
    """The way from the drafter to the verifier. ``fault``: what it is called while it is gone."""

    fault: str
    go: Callable[[], None]
    come_back: Callable[[], None]

    @classmethod
    def silent(cls, proxy: FaultProxy) -> Self:
        """Nothing passes the proxy and nobody is told."""
        return cls("silent", proxy.cut, proxy.restore)

    @classmethod
    def refused(cls, proxy: FaultProxy) -> Self:
        """Connections break at the proxy, and new ones are refused."""

        def go() -> None:
            proxy.refuse()
            proxy.reset()

        return cls("refused", go, lambda: proxy.refuse(False))

    @classmethod
    def lost(cls, road: Road) -> Self:
        """Packets are lost between two network namespaces: handshakes too, which the proxy takes for its own."""
        return cls("lost", road.cut, road.restore)


PROMPT: Final = "The old lighthouse keeper wrote in his diary:"
#: Seconds in which drafts must be back at all.
_PATIENCE: Final = 60.0
#: Chunks with guesses of the drafter, before the link goes.
_DRAFTED: Final = 20


def _unseen(chunk: Chunk) -> None:
    """Of the text that all others are compared with."""


@dataclass
class Watched:
    """When chunks came, for which of them draft tokens were verified, and of which some were accepted. There is nobody
    else than the drafter to draft. Seconds of one clock."""

    chunks: list[float] = field(default_factory=list)
    drafted: list[float] = field(default_factory=list)
    accepted: list[float] = field(default_factory=list)

    def see(self, chunk: Chunk) -> None:
        now = time.monotonic()
        self.chunks.append(now)
        if chunk.step is not None and chunk.step.draft_tokens:
            self.drafted.append(now)
            if chunk.step.accepted_tokens:
                self.accepted.append(now)

    def longest_gap(self, begin: float, end: float) -> float:
        """Between two chunks, of which that time has a part."""
        gaps = [after - before for before, after in itertools.pairwise(self.chunks) if after >= begin and before <= end]
        return max(gaps, default=0.0)


@dataclass(frozen=True)
class Outage:
    """Seconds from the link's return to the first chunk for which guesses of the drafter were verified
    (``drafts_back``; None: never), and to the first of which some were accepted.

    ``longest_gap``: seconds without a chunk while the link was gone, and ``usual_gap`` before. ``differing``: texts, of
    ``texts``, that are not the target's own.
    """

    fault: str
    seconds: float
    drafts_back: float | None
    accepted_back: float | None
    longest_gap: float
    usual_gap: float
    texts: int
    differing: int


async def outage(client: Client, link: Link, *, seconds: float, max_tokens: int) -> Outage:
    """The link is gone for so many seconds, once drafts come. Raises DragomanError."""
    seen = Watched()

    async def text(*, draft: bool = True) -> bytes:
        request = GenerationRequest(
            prompt=Prompt(text=PROMPT),
            sampling=SamplingParams(temperature=0.8, seed=1),
            max_tokens=max_tokens,
            ignore_end=True,
            draft=draft,
            tell_steps=draft,
        )
        return (await client.write(request, on_chunk=seen.see if draft else _unseen)).data

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
        link.go()
        await until(lambda: False, seconds)
        back = time.monotonic()
        link.come_back()
        await until(lambda: bool(seen.accepted) and seen.accepted[-1] > back, _PATIENCE)
        written = len(texts)
        await until(lambda: len(texts) > written, _PATIENCE)  # that one to its end
    finally:
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
    return Outage(
        link.fault,
        seconds,
        drafts_back=_first_after(back, seen.drafted),
        accepted_back=_first_after(back, seen.accepted),
        longest_gap=seen.longest_gap(gone, back),
        usual_gap=seen.longest_gap(first, gone),
        texts=len(texts),
        differing=sum(each != own for each in texts),
    )


def _first_after(begin: float, times: list[float]) -> float | None:
    return next((at - begin for at in times if at > begin), None)


async def measure(
    target: str, drafter: str, side: Side, *, seconds: float, max_tokens: int, delay: float, patience: float
) -> list[Outage]:
    """A link through the proxy, silent and refused. ``delay``: of it, one way; ``patience``: of the target for its
    drafter. Seconds. Raises DragomanError."""
    async with serving(target, side, *_options(patience)) as served:
        at = Address.parse(served.address, field="verifier")
        async with (
            FaultProxy(at.host, at.port, LinkConditions(delay)) as proxy,
            drafting([drafter], proxy.address, side),
        ):
            links = (Link.silent(proxy), Link.refused(proxy))
            return [await outage(served.client, link, seconds=seconds, max_tokens=max_tokens) for link in links]


async def measure_lost(
    target: str, drafter: str, side: Side, *, seconds: float, max_tokens: int, patience: float
) -> list[Outage]:
    """Between two network namespaces, as root. See ``measure``."""
    with two_hosts() as hosts:
        link = Link.lost(hosts.road())
        async with (
            serving(target, side, *_options(patience), host=hosts.cloud) as served,
            drafting([drafter], served.address, side, host=hosts.edge),
        ):
            return [await outage(served.client, link, seconds=seconds, max_tokens=max_tokens)]


def _options(patience: float) -> tuple[str, ...]:
    return "--no-adaptive", "--no-lookup", f"--patience={1000 * patience:g}"


def show(found: list[Outage], console: Console) -> None:
    """One row for each fault."""
    table = Table(box=None, pad_edge=False)
    for heading in ("link is", "for", "drafts back after", "accepted", "longest gap", "before", "texts", "differ"):
        table.add_column(heading, justify="left" if heading == "link is" else "right")
    for one in found:
        back = [f"{at:.2f} s" if at is not None else "never" for at in (one.drafts_back, one.accepted_back)]
        gaps = [f"{1000 * gap:.0f} ms" for gap in (one.longest_gap, one.usual_gap)]
        table.add_row(one.fault, f"{one.seconds:g} s", *back, *gaps, str(one.texts), str(one.differing))
    console.print(table)


def main(
    target: str = "smollm2-135m",
    drafter: str = "smollm2-135m",
    seconds: Annotated[float, typer.Option(help="That the link is gone", min=0.1)] = 20.0,
    max_tokens: Annotated[int, typer.Option(help="Tokens of a text", min=1)] = 200,
    delay: Annotated[float, typer.Option(help="Of the proxy, one way, in milliseconds", min=0.0)] = 5.0,
    patience: Annotated[float, typer.Option(help="Of the target for its drafter, in milliseconds", min=0.0)] = 100.0,
    namespaces: Annotated[bool, typer.Option(help="Lose packets as well, between two of them; as root")] = False,
    device: str = "auto",
    dtype: str = "auto",
    threads: Annotated[int, typer.Option(min=0)] = 1,
    output: Annotated[Path | None, typer.Option(help="JSON")] = None,
) -> None:
    """Take the link to the drafter away for a while."""
    if namespaces:
        check_possible()
    side = Side(device=device, dtype=dtype, threads=threads)
    options: dict[str, Any] = {"seconds": seconds, "max_tokens": max_tokens, "patience": patience / 1000}
    found = asyncio.run(measure(target, drafter, side, delay=delay / 1000, **options))
    if namespaces:
        found += asyncio.run(measure_lost(target, drafter, side, **options))
    show(found, Console())
    if output is not None:
        write_results({"outages": [asdict(one) for one in found]}, output)
    if any(one.differing or one.drafts_back is None for one in found):
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(main)
