"""Clients at once and at random; and what they ask is the target's own text, also resumed in the middle."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.clients import Asking, Load
from dragoman import Client
from speculation.errors import DivergedError, InputError
from speculation.protocol.messages import Prompt
from tests.support.service_drivers import baseline, drafters, drafting, serving
from tests.support.text_engine import TextEngine


@pytest.mark.parametrize("clients", [1, 3, 16])
async def test_so_many_clients_ask_at_once_and_each_takes_the_next(clients: int):
    open_now = most = 0
    begun: list[int] = []

    async def ask(number: int) -> int:
        nonlocal open_now, most
        begun.append(number)
        open_now += 1
        most = max(most, open_now)
        for _ in range(1 + number % 4):
            await asyncio.sleep(0)
        open_now -= 1
        return 10 * number

    found, seconds = await Load(clients).run(ask, 8)
    assert found == [10 * number for number in range(8)] and seconds > 0
    assert most == min(clients, 8) and begun == sorted(begun)


async def test_arrivals_do_not_wait_for_answers():
    all_are_here = asyncio.Event()
    waiting: list[int] = []

    async def ask(number: int) -> int:
        waiting.append(number)
        if len(waiting) == 6:
            all_are_here.set()
        await all_are_here.wait()
        return number

    found, _ = await Load(rate=1000.0).run(ask, 6)
    assert found == waiting == list(range(6))


def test_loads_that_make_no_sense_are_refused():
    assert (Load(8).name, Load(rate=0.5).name) == ("8", "0.5/s")
    with pytest.raises(InputError, match="concurrency=0"):
        Load(0)
    with pytest.raises(InputError, match="rate=-1"):
        Load(rate=-1.0)


async def test_what_is_asked_is_the_same_text_however_it_is_served():
    engine = TextEngine()
    async with serving(engine) as (verifier, address), Client(address) as client:
        prompts = [Prompt(text="a story: "), Prompt(text="another: ")]
        asking = Asking(client, prompts, temperature=0.8, max_tokens=60, ignore_end=True)
        alone = [(await asking.ask(number, draft=False)) for number in range(2)]
        assert all(one.completion.stats.draft_tokens == 0 for one in alone), "neither drafters nor lookup"
        assert len(alone[0].arrivals) == 60 and len(alone[0].gaps) == 59
        async with drafting(address):
            await drafters(verifier, 1)
            for number, one in enumerate(alone):
                data, ids = one.completion.data, one.completion.token_ids
                drafted = (await asking.ask(number, draft=True)).completion
                assert (drafted.data, drafted.token_ids) == (data, ids)
                for cut in (0, 1, len(data) // 2, len(data)):
                    resumed = (await asking.resume(number, data[:cut], draft=True)).completion
                    assert (resumed.data, resumed.token_ids) == (data, ids)
                    assert (resumed.replayed_tokens > 0) == (cut > 0)
        with pytest.raises(DivergedError):
            await asking.resume(0, b"once upon a time", draft=True)
        await baseline(verifier, engine)
