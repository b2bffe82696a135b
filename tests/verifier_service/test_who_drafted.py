"""Whether a drafter works can be seen: it is named, and what others guessed is not its own."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from rich.status import Status

from dragoman.client import Client
from dragoman.demo_table import Comparison, DemoTable
from dragoman.terminal import LiveText, show_summary, summary, who_drafted
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.protocol.completion import Completion
from speculation.protocol.generation import Chunk, Finished, SourceStats, SpeculationStats
from speculation.protocol.messages import Prompt, SpeculationPlan
from speculation.sampling.params import SamplingParams
from speculation.source import SourceKind
from speculation.text.text_stream import TextRun
from tests.support.service_drivers import WAITING, drafters, drafting, request, serving, stub_to, text_of
from tests.support.text_engine import TextDrafter, TextEngine
from transport import codec
from transport.generation_codec import event_from_wire

PROMPT = Prompt(text="a story: ")


def drafter(model: str, accepted: int, drafted: int, name: str = "", instance: str = "") -> pb.SourceStats:
    return pb.SourceStats(
        source=pb.DRAFT_SOURCE_DRAFTER,
        name=name or f"edge/{model}",
        model=model,
        instance=instance,
        draft_tokens=drafted,
        accepted_tokens=accepted,
    )


def other(source: pb.DraftSource, accepted: int, drafted: int) -> pb.SourceStats:
    return pb.SourceStats(source=source, draft_tokens=drafted, accepted_tokens=accepted)


LOOKED_UP = other(pb.DRAFT_SOURCE_LOOKUP, 2, 9)


def decoded(**fields: Any) -> SpeculationStats:
    """As they come from the wire."""
    finished = pb.GenerateFinished(finish_reason=pb.FINISH_REASON_STOP, speculation=pb.SpeculationStats(**fields))
    event = event_from_wire(pb.GenerateResponse(finished=finished))
    assert isinstance(event, Finished)
    return event.stats


def completion(*sources: pb.SourceStats, connected: int | None = 1, allowed: bool = True, **kwargs) -> Completion:
    counted = [source for source in sources if source.source != pb.DRAFT_SOURCE_REPLAY]
    stats = decoded(
        steps=26,
        draft_tokens=sum(source.draft_tokens for source in counted),
        accepted_tokens=sum(source.accepted_tokens for source in counted),
        sources=sources,
        drafters_connected=connected,
    )
    return Completion(stats=stats, token_ids=[0] * 64, drafters_allowed=allowed, **kwargs)


SMOLLM = drafter("smollm2-135m", 15, 41)
WORDS = {
    "one drafter": (completion(SMOLLM, LOOKED_UP), "smollm2-135m 37% of 41 draft tokens accepted, lookup 2 of 9"),
    "two": (
        completion(drafter("gemma3-270m", 1, 4), SMOLLM),
        "smollm2-135m 37% of 41, gemma3-270m 25% of 4 draft tokens accepted",
    ),
    "one of two drafted": (
        completion(drafter("gemma3-270m", 0, 0), SMOLLM),
        "smollm2-135m 37% of 41 draft tokens accepted",
    ),
    "two of one model": (
        completion(drafter("m", 1, 4, "berlin"), drafter("m", 1, 5, "sydney")),
        "sydney 20% of 5, berlin 25% of 4 draft tokens accepted",
    ),
    "a drafter that looks up": (
        completion(drafter("lookup", 1, 4), LOOKED_UP),
        "edge/lookup 25% of 4 draft tokens accepted, lookup 2 of 9",
    ),
    "none is connected": (completion(LOOKED_UP, connected=0), "no drafter is connected, lookup 2 of 9"),
    "nothing at all": (completion(connected=0), "no drafter is connected"),
    "it was too late": (
        completion(drafter("smollm2-135m", 0, 0), LOOKED_UP),
        "no draft of smollm2-135m was verified, lookup 2 of 9",
    ),
    "it took no part": (completion(LOOKED_UP, connected=2), "no drafter took part (2 connected), lookup 2 of 9"),
    "it left": (completion(SMOLLM, connected=0), "smollm2-135m 37% of 41 draft tokens accepted"),
    "it was not asked": (completion(LOOKED_UP, allowed=False), "no drafter was asked, lookup 2 of 9"),
    "a prediction": (
        completion(other(pb.DRAFT_SOURCE_REPLAY, 7, 8), LOOKED_UP, other(pb.DRAFT_SOURCE_PREDICTION, 5, 6)),
        "no drafter took part (1 connected), prediction 5 of 6, lookup 2 of 9, replay 7 of 8",
    ),
    "an old verifier": (
        Completion(stats=decoded(steps=9, draft_tokens=50, accepted_tokens=10)),
        "20% of draft tokens accepted",
    ),
    "an old verifier alone": (Completion(stats=decoded(steps=9)), "no drafts"),
    "a newer verifier": (
        completion(SMOLLM, pb.SourceStats.FromString(b"\x08\x63\x28\x07")),
        "smollm2-135m 37% of 41 draft tokens accepted",
    ),
}


@pytest.mark.parametrize("told, words", WORDS.values(), ids=WORDS.keys())
def test_the_summary_says_who_drafted_or_why_nobody_did(told: Completion, words: str):
    assert who_drafted(told) == words
    assert words in summary(told).plain


def runs(*kinds: SourceKind | None) -> list[TextRun]:
    return [TextRun(b"ab ", True, kind) for kind in kinds] + [TextRun(b"c", False)]


def shown(*pieces: TextRun) -> str:
    written = io.StringIO()
    live = LiveText(Console(file=written, force_terminal=True, width=80, color_system="standard"))
    live.show(Chunk(pieces, ()))
    live.end()
    return written.getvalue()


def test_the_legend_shows_the_colours_that_occur():
    def legend(*kinds: SourceKind | None) -> str:
        return summary(completion(SMOLLM, runs=runs(*kinds))).plain.partition("accepted")[2].strip()

    assert legend() == ""
    assert legend(SourceKind.DRAFTER) == "drafter / target"
    assert legend(SourceKind.LOOKUP, SourceKind.DRAFTER) == "drafter / lookup / target"
    assert legend(SourceKind.PREDICTION) == "prediction / target"
    assert legend(None) == "drafted / target"


def test_each_source_has_a_colour_of_its_own():
    colours = {kind: shown(TextRun(b"word", True, kind)).partition("word")[0] for kind in SourceKind}
    assert len({*colours.values(), shown(TextRun(b"word", False)).partition("word")[0]}) == len(SourceKind) + 1
    assert shown(TextRun(b"word", True)).partition("word")[0] == colours[SourceKind.DRAFTER], "of old verifiers"


@pytest.mark.parametrize("width", [40, 80])
def test_a_narrow_terminal_cuts_the_summary_between_words(width: int):
    written = io.StringIO()
    told = completion(SMOLLM, LOOKED_UP, runs=runs(SourceKind.DRAFTER, SourceKind.LOOKUP))
    show_summary(told, Console(file=written, force_terminal=True, width=width, color_system=None))
    lines = written.getvalue().splitlines()
    assert len(lines) > 1 and all(len(line) <= width for line in lines)
    assert " ".join(" ".join(lines).split()) == " ".join(summary(told).plain.split()), "no word is cut"
    piped = io.StringIO()
    show_summary(told, Console(file=piped, width=width))
    assert len(piped.getvalue().splitlines()) == 1


def test_json_names_drafters_and_counts_the_others_apart():
    told = completion(SMOLLM, drafter("gemma3-270m", 0, 0), LOOKED_UP, other(pb.DRAFT_SOURCE_REPLAY, 3, 3), connected=3)
    found = told.to_json()["speculation"]
    assert found["drafters_connected"] == 3 and (found["draft_tokens"], found["accepted_tokens"]) == (50, 17)
    smollm, gemma = found["drafters"]
    assert smollm == {
        "name": "edge/smollm2-135m",
        "model": "smollm2-135m",
        "draft_tokens": 41,
        "accepted_tokens": 15,
        "acceptance_rate": 15 / 41,
    }
    assert gemma["model"] == "gemma3-270m" and gemma["draft_tokens"] == 0 and gemma["acceptance_rate"] is None
    assert found["lookup"] == {"draft_tokens": 9, "accepted_tokens": 2, "acceptance_rate": 2 / 9}
    assert found["prediction"] == {"draft_tokens": 0, "accepted_tokens": 0, "acceptance_rate": None}
    assert found["replay"]["accepted_tokens"] == 3
    old = Completion(stats=decoded(draft_tokens=2)).to_json()["speculation"]
    assert old["drafters_connected"] is None and old["drafters"] == [] and old["lookup"] is None


def test_the_demo_shows_what_the_drafter_achieved_and_not_the_lookup():
    written = io.StringIO()
    told = completion(SMOLLM, LOOKED_UP)
    assert told.drafter_acceptance_rate == 15 / 41 and told.acceptance_rate == 17 / 50
    nobody = completion(LOOKED_UP)
    assert nobody.drafter_acceptance_rate is None
    table = DemoTable(Console(file=written, width=110), Status("", console=Console(file=io.StringIO())))
    for drafted in (told, nobody):
        table.add(Comparison(PROMPT, nobody, drafted))
    first, second = [line for line in written.getvalue().splitlines() if "a story" in line]
    assert "37%" in first and "%" not in second


# ---- over the wire ------------------------------------------------------------------------------------------------


async def told_by(address, **kwargs) -> Completion:
    async with Client(address) as client:
        return await client.complete(PROMPT, max_tokens=60, **kwargs)


async def test_without_a_drafter_nothing_is_said_to_be_drafted():
    async with serving(TextEngine(), plan=WAITING, adaptive=False) as (_, address):
        told = await told_by(address, ignore_end=True)
        assert told.drafters_connected == 0 and told.shares_of(SourceKind.DRAFTER) == []
        assert told.drafter_acceptance_rate is None and told.acceptance_rate is not None
        assert "no drafter is connected, lookup" in who_drafted(told)
        assert {run.source for run in told.runs if run.drafted} <= {SourceKind.LOOKUP, SourceKind.RECYCLED}


async def test_a_drafter_is_named_and_has_its_own_counts():
    async with serving(TextEngine(), plan=WAITING, adaptive=False) as (verifier, address), drafting(address):
        await drafters(verifier, 1)
        told = await told_by(address, ignore_end=True, prediction="the cat sat")
        [share] = told.shares_of(SourceKind.DRAFTER)
        assert (share.name, share.model) == ("d", "text-drafter") and 0 < share.accepted_tokens <= share.draft_tokens
        assert sum(one.draft_tokens for one in told.shares) == told.stats.draft_tokens
        assert sum(one.accepted_tokens for one in told.shares) == told.stats.accepted_tokens
        assert who_drafted(told).startswith(f"text-drafter {share.acceptance_rate:.0%} of {share.draft_tokens} draft")
        by_drafter = b"".join(run.text for run in told.runs if run.source is SourceKind.DRAFTER)
        assert by_drafter and all(run.source is not None for run in told.runs if run.drafted)
        alone = await told_by(address, draft=False)
        assert alone.drafters_connected == 1 and not alone.drafters_allowed
        assert who_drafted(alone).startswith("no drafter was asked")


async def test_a_drafter_that_is_connected_and_does_nothing_is_said_to():
    plan = SpeculationPlan(width=0)
    async with serving(TextEngine(), plan=plan, adaptive=False, lookup=False) as (verifier, address), drafting(address):
        await drafters(verifier, 1)
        assert who_drafted(await told_by(address)) == "no drafter took part (1 connected)"
    refusing = TextDrafter(refuse=True)
    async with (
        serving(TextEngine(), plan=WAITING, adaptive=False, lookup=False) as (verifier, address),
        drafting(address, refusing),
    ):
        await drafters(verifier, 1)
        assert who_drafted(await told_by(address)) == "no draft of text-drafter was verified"


async def test_a_drafter_that_comes_back_is_one_and_two_of_one_name_are_two():
    engine = TextEngine()
    async with serving(engine, plan=WAITING, adaptive=False, lookup=False) as (verifier, address):

        async def change(text: bytes) -> None:
            """After some text the first drafter leaves and comes back, and another of its name comes."""
            if len(text) >= 12 and not changed:
                changed.append(True)
                engine.gate.clear()
                task = running.pop()
                await task.__aexit__(None, None, None)
                await drafters(verifier, 0)
                for instance in ("one", "two"):
                    again = drafting(address, instance=instance)
                    await again.__aenter__()
                    running.append(again)
                await drafters(verifier, 2)
                engine.gate.set()

        changed: list[bool] = []
        first = drafting(address, instance="one")
        await first.__aenter__()
        running = [first]
        await drafters(verifier, 1)
        _, finished = await text_of(address, request(SamplingParams(), ignore_end=True, max_tokens=120), change)
        for one in running:
            await one.__aexit__(None, None, None)
    told = {entry.instance: entry for entry in finished.speculation.sources}
    assert changed and len(finished.speculation.sources) == 2 and set(told) == {"one", "two"}
    assert sum(entry.draft_tokens for entry in told.values()) == finished.speculation.draft_tokens
    assert told["one"].draft_tokens > 0 and {entry.name for entry in told.values()} == {"d"}


async def test_what_an_old_client_reads_is_as_before():
    """Totals count all sources, and every guessed run is marked as drafted."""
    async with serving(TextEngine(), plan=WAITING, adaptive=False) as (verifier, address), drafting(address):
        await drafters(verifier, 1)
        async with stub_to(address) as stub:
            drafted = 0
            async for response in stub.Generate(request(SamplingParams(), ignore_end=True)):
                for run in response.chunk.runs:
                    assert run.drafted == (run.source != pb.DRAFT_SOURCE_UNSPECIFIED)
                    drafted += run.drafted
                stats = response.finished.speculation
    assert drafted and stats.accepted_tokens == sum(stats.accepted_tokens_per_pos) > 0


def test_sources_travel_and_unknown_ones_are_nobody():
    assert [codec.source_from_wire(codec.source_to_wire(kind)) for kind in SourceKind] == list(SourceKind)
    assert codec.source_from_wire(pb.DRAFT_SOURCE_UNSPECIFIED) is codec.source_from_wire(99) is None
    assert SourceStats(SourceKind.LOOKUP, "", "", 0, 0).acceptance_rate is None
