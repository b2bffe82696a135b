"""Places for texts: who gets them, in which order, and that none is ever lost."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from gateway.admission import Admission, Places
from speculation.errors import DrainingError, LimitExceededError


class Asking:
    """A request that holds its places until it is let go."""

    def __init__(self, admission: Admission, texts: int = 1) -> None:
        self.places: Places | None = None
        self.leave = asyncio.Event()
        self._task = asyncio.create_task(self._hold(admission, texts))

    async def _hold(self, admission: Admission, texts: int) -> None:
        async with admission.places(texts) as self.places:
            await self.leave.wait()

    async def end(self) -> None:
        self.leave.set()
        await self._task

    async def cancel(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_places_are_given_in_the_order_of_the_requests():
    admission = Admission(max_concurrent=2, max_queue=10)
    asking = [Asking(admission) for _ in range(5)]
    await settle()
    assert [each.places is not None for each in asking] == [True, True, False, False, False]
    assert (admission.running, admission.waiting) == (2, 3)
    await asking[1].end()
    await settle()
    assert asking[2].places is not None and asking[3].places is None
    for each in asking:
        await each.end()
    assert (admission.running, admission.waiting) == (0, 0)


async def test_a_large_request_is_not_overtaken_and_one_beyond_all_places_has_them_all():
    admission = Admission(max_concurrent=3, max_queue=10)
    one, many, late = Asking(admission), Asking(admission, 100), Asking(admission)
    await settle()
    assert one.places is not None and many.places is None and late.places is None
    await one.end()
    await settle()
    assert many.places is not None and many.places.count == 3 and late.places is None
    many.places.give_back(1)
    await settle()
    assert late.places is not None and admission.running == 3
    await many.end()
    await late.end()
    assert admission.running == 0


async def test_who_leaves_the_queue_is_in_nobodys_way():
    admission = Admission(max_concurrent=2, max_queue=10)
    one, many, late = Asking(admission), Asking(admission, 2), Asking(admission)
    await settle()
    await many.cancel()
    await settle()
    assert late.places is not None and admission.waiting == 0
    await one.end()
    await late.end()
    assert admission.running == 0


async def test_beyond_the_queue_and_after_the_end_nobody_is_let_in():
    admission = Admission(max_concurrent=1, max_queue=1)
    first, second = Asking(admission), Asking(admission)
    await settle()
    with pytest.raises(LimitExceededError):
        async with admission.places(1):
            pass
    admission.close()
    with pytest.raises(DrainingError):
        async with admission.places(1):
            pass
    await first.end()
    await settle()
    assert second.places is not None, "who waited is let in still"
    await second.end()


@pytest.mark.parametrize("seed", range(20))
async def test_no_place_is_lost_or_given_twice_whatever_happens(seed: int):
    rng = random.Random(seed)
    admission = Admission(max_concurrent=4, max_queue=1000)
    asking: list[Asking] = []
    for _ in range(300):
        if not asking or rng.random() < 0.45:
            asking.append(Asking(admission, rng.choice((1, 1, 2, 3, 9))))
        else:
            leaving = asking.pop(rng.randrange(len(asking)))
            if leaving.places is not None and leaving.places.count > 1 and rng.random() < 0.3:
                leaving.places.give_back()
            if rng.random() < 0.5 or leaving.places is None:
                await leaving.cancel()
            else:
                await leaving.end()
        if rng.random() < 0.5:
            await settle()
        held = sum(each.places.count for each in asking if each.places is not None)
        assert held <= admission.running <= 4
    for each in asking:
        with contextlib.suppress(asyncio.CancelledError):
            await each.cancel()
    assert (admission.running, admission.waiting) == (0, 0)
    async with admission.places(4) as places:
        assert places.count == 4
