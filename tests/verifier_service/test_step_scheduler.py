"""Steps that several sessions share: the bytes of each are those of its own, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dragoman import Client, Dragoman, ModelError, Rule, SamplingParams
from speculation.drafts.candidates import CandidateTree
from speculation.errors import DragomanError
from speculation.verification.step import Step
from tests.support.service_drivers import baseline, drafters, drafting, eventually, serving
from tests.support.text_engine import TextEngine, TextSlot
from verifier_service import shared_step
from verifier_service.shared_step import share_rows

PROMPTS = ("a story: ", "once ", "x", "the end of a long day, ")
SETTINGS = (
    SamplingParams(),
    SamplingParams(temperature=1.0, seed=3),
    SamplingParams(temperature=0.7, top_k=20, seed=4),
    SamplingParams(temperature=1.2, top_p=0.8, repetition_penalty=1.2, seed=5),
)
#: Rules whose text does not depend on the drafts, so that it can be compared.
ASKED: list[dict[str, Any]] = [
    dict(prompt=prompt, sampling=sampling, rule=rule, max_tokens=30)
    for prompt, (sampling, rule) in zip(
        itertools.cycle(PROMPTS), itertools.product(SETTINGS, (Rule.RACE, Rule.EXACT)), strict=False
    )
]


async def alone(**asked: Any) -> bytes:
    async with Dragoman(TextEngine()) as model:
        return (await model.complete(**asked)).data


@pytest.mark.parametrize("rows", [16, 64])
@pytest.mark.parametrize("assisted", [0, 2])
async def test_bytes_in_company_are_those_alone(rows: int, assisted: int):
    expected = [await alone(**asked) for asked in ASKED]
    engine = TextEngine(rows=rows, step_seconds=0.02 if assisted else 0.002)
    async with serving(engine) as (verifier, address), Client(address) as client:
        async with drafting(address), drafting(address):
            await drafters(verifier, 2)
            steps = accepted = 0
            async with asyncio.timeout(120):
                while not steps or (assisted and not accepted):  # texts may end before the first draft is there
                    work = [client.complete(**asked, draft=bool(assisted)) for asked in ASKED * 4]  # 32 sessions
                    done = await asyncio.gather(*work)
                    assert [completion.data for completion in done] == expected * 4
                    steps += sum(completion.stats.steps for completion in done)
                    accepted += sum(completion.stats.accepted_tokens for completion in done)
        await baseline(verifier, engine)
    assert len(engine.batches) < steps / 3, "they share steps"


async def test_sessions_under_rules_that_draw_end_and_leave_nothing():
    engine = TextEngine(rows=16, step_seconds=0.002)
    async with serving(engine) as (verifier, address), drafting(address), Client(address) as client:
        await drafters(verifier, 1)
        sampling = SamplingParams(temperature=1.0, seed=9)
        work = [
            client.complete("a story: ", sampling=sampling, rule=rule, max_tokens=30, ignore_end=True)
            for rule in Rule.concrete() * 3
        ]
        assert {completion.completion_tokens for completion in await asyncio.gather(*work)} == {30}
        await baseline(verifier, engine)


async def test_more_sessions_than_rows_all_get_their_turn():
    expected = await alone(**ASKED[1])
    engine = TextEngine(rows=16, step_seconds=0.001)
    async with Dragoman(engine) as model:
        done = await asyncio.gather(*(model.complete(**ASKED[1]) for _ in range(40)))
    assert {completion.data for completion in done} == {expected} and max(engine.batches) <= 16


class Spoiled(TextEngine):
    """Every step with a session of ``spoiled`` in it fails as a whole, or gives that session NaN."""

    def __init__(self, *, whole: bool) -> None:
        super().__init__(rows=64, step_seconds=0.002)
        self.whole = whole
        self.spoiled: set[TextSlot] = set()

    def open(self, prompt_ids: Sequence[int]) -> TextSlot:
        slot = super().open(prompt_ids)
        if len(prompt_ids) == len(self.tokenizer.encode("spoil me")):
            self.spoiled.add(slot)
        return slot

    def step(self, batch: Sequence[tuple[Any, Step]]) -> list[torch.Tensor]:
        if self.whole and any(slot in self.spoiled for slot, _ in batch):
            raise RuntimeError("out of memory on the device")
        logits = super().step(batch)
        return [
            rows * torch.nan if slot in self.spoiled else rows for (slot, _), rows in zip(batch, logits, strict=True)
        ]


@pytest.mark.parametrize("whole", [True, False])
async def test_what_fails_in_a_step_fails_its_own_session_only(whole: bool):
    expected = [await alone(**asked) for asked in ASKED]
    engine = Spoiled(whole=whole)
    async with serving(engine) as (verifier, address), Client(address) as client:
        good = [asyncio.create_task(client.complete(**asked)) for asked in ASKED]
        await eventually(lambda: engine.batches)
        with pytest.raises(DragomanError) as caught:
            await client.complete("spoil me", max_tokens=30)
        assert whole or ("usable maximum" in str(caught.value) and not isinstance(caught.value, ModelError))
        assert [(await completion).data for completion in good] == expected
        await baseline(verifier, engine)


@pytest.mark.parametrize("where", ["draw_rows", "share_rows"])
@pytest.mark.parametrize("failures", [1, 10_000])
async def test_what_fails_beside_the_pass_hangs_nobody(monkeypatch: pytest.MonkeyPatch, where: str, failures: int):
    """Drawing, on a device without memory, is repeated session by session; whatever else fails is told to all."""
    expected = [await alone(**asked) for asked in ASKED]
    engine, left = TextEngine(rows=64, step_seconds=0.002), [RuntimeError("out of memory")] * failures
    right = getattr(shared_step, where)

    def failing(*args: Any) -> Any:
        if left and (failures > 1 or len(args[0]) > 1):
            raise left.pop()
        return right(*args)

    async with serving(engine) as (verifier, address), Client(address) as client:
        monkeypatch.setattr(shared_step, where, failing)
        work = [client.complete(**asked) for asked in ASKED]
        async with asyncio.timeout(120):
            done = await asyncio.gather(*work, return_exceptions=True)
        texts = [completion.data for completion in done if not isinstance(completion, BaseException)]
        assert failures == 1 or texts == []
        if failures == 1 and where == "draw_rows":
            assert texts == expected and not left
        assert all(isinstance(each, DragomanError) for each in done if isinstance(each, BaseException))
        monkeypatch.setattr(shared_step, where, right)
        assert (await client.complete(**ASKED[0])).data == expected[0]
        await baseline(verifier, engine)


async def test_clients_that_leave_at_random_leave_nothing_and_change_nothing():
    expected = await alone(**ASKED[3])
    engine = TextEngine(rows=32, step_seconds=0.001)
    async with serving(engine, max_sessions=200) as (verifier, address), Client(address) as client:
        staying = [asyncio.create_task(client.complete(**ASKED[3])) for _ in range(4)]
        leaving = [asyncio.create_task(client.complete(**ASKED[n % 8], ignore_end=True)) for n in range(100)]
        for number, task in enumerate(leaving):
            await asyncio.sleep(0.001 * (number % 3))
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        assert {(await completion).data for completion in staying} == {expected}
        await baseline(verifier, engine)


async def test_who_finds_no_memory_waits_in_order_and_disturbs_nobody():
    expected = await alone(**ASKED[1])
    engine = TextEngine(rows=64, step_seconds=0.002, room=150)
    began: list[int] = []
    async with serving(engine) as (verifier, address), Client(address) as client:

        async def ask(number: int, max_tokens: int) -> bytes:
            asked = {**ASKED[1], "max_tokens": max_tokens}
            return (await client.complete(**asked, on_started=lambda _: None, on_chunk=lambda _: note(number))).data

        def note(number: int) -> None:
            if number not in began:
                began.append(number)

        # Three of 40 fit beside each other; one of 120 waits for all of them, and a small one behind it for its turn.
        tasks = []
        for number, tokens in enumerate((30, 30, 30, 120, 30)):
            tasks.append(asyncio.create_task(ask(number, tokens)))
            await eventually(lambda number=number: len(verifier.sessions) == number + 1 or tasks[0].done())
        leaving = asyncio.create_task(ask(9, 30))
        await eventually(lambda: began)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        done = await asyncio.gather(*tasks)
        assert [data[:20] for data in done] == [expected[:20]] * 5
        assert set(began[:3]) == {0, 1, 2} and began[3] == 3, "nobody overtakes who waits for memory"
        await baseline(verifier, engine)
    assert not engine.held


# ---- sharing the rows of a step -------------------------------------------------------------------------------------


def step_of(width: int) -> Step:
    return Step(1, CandidateTree.chain(range(width)))


@given(st.lists(st.integers(0, 63), min_size=1, max_size=32), st.integers(64, 128))
def test_rows_are_shared_evenly_and_none_is_wasted(wanted: list[int], rows: int):
    shared = share_rows({number: step_of(width) for number, width in enumerate(wanted)}, rows)
    given_ = [len(shared[number].candidates) for number in range(len(wanted))]
    assert sum(given_) + len(wanted) <= rows
    assert all(has <= wants for has, wants in zip(given_, wanted, strict=True))
    short = [has for has, wants in zip(given_, wanted, strict=True) if has < wants]
    if short:
        assert max(given_) <= min(short) + 1, "nobody who is short has fewer than anyone, but for what is left over"
        assert sum(given_) + len(wanted) == rows
    assert all(has >= min(wants, rows // len(wanted) - 1) for has, wants in zip(given_, wanted, strict=True))


@given(st.lists(st.integers(0, 63), min_size=2, max_size=16), st.integers(0, 63))
def test_what_a_session_may_have_does_not_depend_on_what_it_drafted(others: list[int], wanted: int):
    """But that it has no more than it wants: or a rule whose drafts are drawn would be skewed by narrowing."""
    most = len(share_rows(dict(enumerate(map(step_of, [63, *others]))), 64)[0].candidates)
    assert len(share_rows(dict(enumerate(map(step_of, [wanted, *others]))), 64)[0].candidates) == min(wanted, most)


def likely(*chances: float, drawn: bool = False) -> Step:
    tree = dataclasses.replace(CandidateTree.chain(range(len(chances))), chances=() if drawn else chances)
    return Step(1, tree, (None,) * len(chances) if drawn else ())


def test_rows_go_to_the_likeliest_candidates_whoevers_they_are():
    steps = dict(enumerate([likely(0.9, 0.8, 0.7), likely(0.3, 0.2), likely(), likely(0.85, 0.1)]))
    for rows, expected in ((4, [0, 0, 0, 0]), (5, [1, 0, 0, 0]), (6, [1, 0, 0, 1]), (9, [3, 1, 0, 1])):
        shared = share_rows(steps, rows)
        assert [len(shared[number].candidates) for number in range(4)] == expected, rows
        assert all(shared[number].candidates == steps[number].candidates.first(expected[number]) for number in range(4))
    assert share_rows(steps, 11) is steps


def test_half_of_an_even_share_is_sure_however_sure_others_are():
    steps = dict(enumerate([likely(*[1.0] * 40), step_of(31), likely(0.2, 0.1, 0.05), likely(0.3)]))
    shared = share_rows(steps, 20)
    assert [len(shared[number].candidates) for number in range(4)] == [7, 6, 2, 1]


def test_candidates_that_were_drawn_are_not_cut_for_others():
    steps = dict(enumerate([likely(1.0, 1.0, 1.0), likely(*[0.0] * 3, drawn=True), step_of(9)]))
    shared = share_rows(steps, 8)
    assert [len(shared[number].candidates) for number in range(3)] == [1, 3, 1]


def test_a_narrowed_step_is_the_beginning_of_the_tree():
    tree = CandidateTree((5, 6, 7, 8), (-1, 0, -1, 1), (0, 1, 3))
    narrow = Step(1, tree, (None,) * 4, 9).narrowed(3)
    assert narrow == Step(1, CandidateTree((5, 6, 7), (-1, 0, -1), (0, 1)), (None,) * 3, 9)
    assert Step(1, tree).narrowed(4).candidates is tree and len(Step(1, tree).narrowed(0).candidates) == 0
