"""What the target nearly said is drafted again: in whose texts, and that the bytes stay the same."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.drafts.recycled_tokens import RecycledTokens
from speculation.protocol.messages import SpeculationPlan
from speculation.sampling.best_tokens import BestTokens
from speculation.sampling.params import Rule, SamplingParams
from tests.support.service_drivers import request, serving, text_of
from tests.support.text_engine import TextEngine
from transport.identity import Identity, Role
from verifier_service.recycled_texts import TABLES, Recycle, RecycledTexts

GREEDY = SamplingParams()
#: Never adapted, or how many steps a text takes would depend on how long they take.
PLAN = SpeculationPlan(width=16, lookahead=16, verify_threshold=0.0)


def recycled(finished: pb.GenerateFinished) -> tuple[int, int]:
    """Draft tokens, and accepted ones."""
    for source in finished.speculation.sources:
        if source.source == pb.DRAFT_SOURCE_RECYCLED:
            return source.draft_tokens, source.accepted_tokens
    return 0, 0


# ---- whose --------------------------------------------------------------------------------------------------------


def test_each_client_and_salt_has_its_own():
    texts, one, other = RecycledTexts(), Identity(Role.CLIENT, "one"), Identity(Role.CLIENT, "other")
    found = [texts.of(client, salt) for client in (None, one, other) for salt in ("", "a")]
    assert len({id(tokens) for tokens in found}) == 6
    assert texts.of(one, "a") is texts.of(Identity(Role.CLIENT, "one"), "a") is found[3]


def test_a_text_alone_and_none_at_all():
    assert RecycledTexts(Recycle.NONE).of(None) is None
    texts = RecycledTexts(Recycle.TEXT)
    first, second = texts.of(None), texts.of(None)
    assert isinstance(first, RecycledTokens) and first is not second


def test_those_who_came_last_are_kept():
    texts = RecycledTexts()
    first = [texts.of(None, str(number)) for number in range(TABLES)]
    assert texts.of(None, "0") is first[0]
    texts.of(None, "one more")
    assert texts.of(None, "0") is first[0], "it came again"
    assert texts.of(None, "1") is not first[1]


def test_a_client_of_many_salts_takes_nothing_from_another():
    texts, one, other = RecycledTexts(), Identity(Role.CLIENT, "one"), Identity(Role.CLIENT, "other")
    kept = texts.of(one)
    for number in range(3 * TABLES):
        texts.of(other, str(number))
    assert texts.of(one) is kept


# ---- in a verifier ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [None, 64])
@pytest.mark.parametrize("sampling", [GREEDY, SamplingParams(temperature=0.8, seed=3)])
@pytest.mark.parametrize("rule", [Rule.RACE, Rule.EXACT])
async def test_the_second_time_it_is_quicker_and_the_bytes_are_the_same(
    rule: Rule, sampling: SamplingParams, rows: int | None
):
    """``rows``: of an engine whose rows are all drawn, and ranked, at once."""
    async with serving(TextEngine(rows=rows), plan=PLAN, adaptive=False) as (_, address):
        alone, _ = await text_of(address, request(sampling, rule=rule, no_draft=True))
        told = [await text_of(address, request(sampling, rule=rule)) for _ in range(2)]
    assert {text for text, _ in told} == {alone}
    first, second = (finished.speculation for _, finished in told)
    assert second.steps < 0.7 * first.steps
    assert recycled(told[1][1])[1] > recycled(told[0][1])[1]


async def test_nothing_is_learned_of_the_target_alone_nor_of_another_salt():
    async with serving(TextEngine(), plan=PLAN, adaptive=False) as (_, address):
        await text_of(address, request(GREEDY, no_draft=True))
        steps = {}
        for name, salt in (("first", "a"), ("other", "b"), ("again", "a"), ("none", "")):
            text, finished = await text_of(address, request(GREEDY, cache_salt=salt))
            steps[name] = text, finished.speculation.steps
    assert steps["first"] == steps["other"] == steps["none"]
    assert steps["again"][1] < steps["first"][1] and steps["again"][0] == steps["first"][0]


@pytest.mark.parametrize(
    ("recycle", "lookup", "within", "beyond"),
    [
        (Recycle.CLIENT, True, True, True),
        (Recycle.TEXT, True, True, False),
        (Recycle.NONE, True, False, False),
        (Recycle.CLIENT, False, False, False),
    ],
)
async def test_what_the_setting_says(recycle: Recycle, lookup: bool, within: bool, beyond: bool):
    texts = RecycledTexts(recycle, fills=False)
    async with serving(TextEngine(), plan=PLAN, adaptive=False, lookup=lookup, recycled=texts) as (_, address):
        found = [(await text_of(address, request(GREEDY)))[1] for _ in range(2)]
    assert (recycled(found[0])[0] > 0) == within
    assert (found[1].speculation.steps < found[0].speculation.steps) == beyond


async def test_drafters_that_draw_are_not_disturbed():
    async with serving(TextEngine(), plan=PLAN, adaptive=False) as (_, address):
        found = [(await text_of(address, request(GREEDY, rule=Rule.REJECTION)))[1] for _ in range(2)]
    assert [recycled(finished) for finished in found] == [(0, 0), (0, 0)]


@pytest.mark.parametrize("adaptive", [True, False])
async def test_many_at_once_write_what_each_writes_alone(adaptive: bool):
    """Greedy and drawn, by two rules, some of them resumed: all learn from each other while they run."""
    asked = [
        request(SamplingParams(temperature=0.8 * (number % 2), seed=number % 4), rule=rule)
        for number in range(6)
        for rule in (Rule.RACE, Rule.EXACT)
    ]
    async with serving(TextEngine(rows=64), plan=PLAN, adaptive=adaptive) as (verifier, address):

        async def written(each: pb.GenerateRequest, **changes: Any) -> bytes:
            copy = pb.GenerateRequest()
            copy.CopyFrom(each)
            copy.MergeFrom(pb.GenerateRequest(**changes))
            return (await text_of(address, copy))[0]

        alone = [await written(each, no_draft=True) for each in asked]
        for _ in range(2):
            assert await asyncio.gather(*(written(each) for each in asked)) == alone
        rest = await asyncio.gather(
            *(written(each, received=text[:9]) for each, text in zip(asked, alone, strict=True))
        )
        assert [text[:9] + more for text, more in zip(alone, rest, strict=True)] == alone
        assert not verifier.sessions


@pytest.mark.parametrize("broken", ["read", "__init__"])
async def test_no_text_depends_on_what_is_ranked(monkeypatch: pytest.MonkeyPatch, broken: str):
    def fails(*_: object) -> None:
        raise torch.OutOfMemoryError("none left")

    async with serving(TextEngine(rows=64), plan=PLAN, adaptive=False) as (_, address):
        alone, _finished = await text_of(address, request(GREEDY, no_draft=True))
        monkeypatch.setattr(BestTokens, broken, fails)
        text, finished = await text_of(address, request(GREEDY))
    assert text == alone and recycled(finished) == (0, 0)
