"""Work that several ask for is done once, and lost for none of them."""

from __future__ import annotations

import asyncio

import pytest

from speculation.errors import InputError
from verifier_service.shared_work import SharedWork


class Counted:
    """Makes the name of what was asked for, once it may, and counts."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.left = 0
        self.may = asyncio.Event()

    async def __call__(self, key: str) -> str:
        self.made.append(key)
        try:
            await self.may.wait()
        except asyncio.CancelledError:
            self.left += 1
            raise
        return key.upper()


async def asked(shared: SharedWork[str, str], made: Counted, *keys: str) -> list[asyncio.Task[str]]:
    """A task for each, all of them waiting."""
    tasks = [asyncio.create_task(shared.get(key, lambda key=key: made(key))) for key in keys]  # type: ignore[misc]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_who_asks_at_once_or_later_shares_and_the_oldest_are_forgotten():
    shared, made = SharedWork[str, str](kept=2), Counted()
    tasks = await asked(shared, made, "a", "b", "a", "a")
    assert made.made == ["a", "b"]
    made.may.set()
    assert await asyncio.gather(*tasks) == ["A", "B", "A", "A"]
    for key in "aca":  # a was asked for again, so b is the oldest
        assert await shared.get(key, lambda key=key: made(key)) == key.upper()
    assert made.made == ["a", "b", "c"]
    assert await shared.get("b", lambda: made("b")) == "B" and made.made == ["a", "b", "c", "b"]


async def test_who_leaves_takes_the_work_only_if_nobody_else_waits():
    shared, made = SharedWork[str, str](kept=2), Counted()
    leaving, staying, alone = await asked(shared, made, "a", "a", "b")
    for task in (leaving, alone):
        task.cancel()
    await asyncio.gather(leaving, alone, return_exceptions=True)
    await asyncio.sleep(0)
    assert made.left == 1 and not staying.done()
    (late,) = await asked(shared, made, "b")
    assert made.made == ["a", "b", "b"], "what was cancelled is begun again"
    made.may.set()
    assert await staying == "A" and await late == "B"


async def test_a_failure_is_told_to_all_and_tried_again():
    shared, tries = SharedWork[str, str](kept=2), 0

    async def failing() -> str:
        nonlocal tries
        tries += 1
        await asyncio.sleep(0)
        raise InputError("schema", "x", "cannot be compiled")

    told = await asyncio.gather(*(shared.get("a", failing) for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in told] == [InputError] * 3 and tries == 1
    with pytest.raises(InputError, match="cannot be compiled"):
        await shared.get("a", failing)
    assert tries == 2
