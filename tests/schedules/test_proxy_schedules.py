"""Schedules of faults on sockets, in mutual TLS through the fault proxy: the same bytes, nobody stuck, nothing held.

``DRAGOMAN_PROXY_SCHEDULES``: how many, a second or two each.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from pathlib import Path
from typing import Any

from benchmarks.fault_proxy import FaultProxy, LinkConditions
from dragoman import Client, Completion, ConnectionFailedError, Dragoman, Rule, SamplingParams
from tests.support import link_faults
from tests.support.certificates import TestAuthority
from tests.support.link_faults import FAULTS, inflict, mend
from tests.support.service_drivers import PATIENCE, baseline, drafters, drafting, serving
from tests.support.text_engine import TextDrafter, TextEngine
from transport.address import Address
from transport.identity import Role

SCHEDULES = int(os.environ.get("DRAGOMAN_PROXY_SCHEDULES", "8"))
CONDITIONS = (
    LinkConditions(0.0),
    LinkConditions(0.01),
    LinkConditions(0.005, jitter=0.02),
    LinkConditions(0.002, bytes_per_second=50_000),
)
SAMPLINGS = (SamplingParams(), SamplingParams(temperature=0.8, seed=9), SamplingParams(temperature=1.2, seed=4))


_impatient = link_faults.impatient


def drawn(chance: random.Random) -> dict[str, Any]:
    """What a client asks for."""
    return dict(
        prompt=chance.choice(("a story: ", "twice ", "the cat")),
        sampling=chance.choice(SAMPLINGS),
        max_tokens=chance.randrange(20, 60),
        rule=chance.choice((Rule.RACE, Rule.EXACT)),
        ignore_end=True,
    )


async def trouble(proxy: FaultProxy, chance: random.Random) -> None:
    """Fault after fault, each for a moment."""
    while True:
        await asyncio.sleep(chance.uniform(0, 0.3))
        if chance.random() < 1 / 6:
            proxy.set(chance.choice(CONDITIONS))
        else:
            inflict(proxy, chance.choice(FAULTS))
        await asyncio.sleep(chance.uniform(0, 0.6))
        mend(proxy)


async def run_schedule(seed: int, near: Client, proxies: list[FaultProxy], expecting: Dragoman) -> None:
    """Texts while the drafters' links fail; they end all the same, and are the target's own."""
    chance = random.Random(seed)
    asked = [drawn(chance) for _ in range(chance.randrange(1, 4))]
    troubles = [asyncio.create_task(trouble(proxy, random.Random(chance.getrandbits(32)))) for proxy in proxies]
    try:
        async with asyncio.timeout(PATIENCE):
            found = await asyncio.gather(*(near.complete(**each) for each in asked))
    finally:
        for task in troubles:
            task.cancel()
        await asyncio.gather(*troubles, return_exceptions=True)
        for proxy in proxies:
            mend(proxy)
    for each, completion in zip(asked, found, strict=True):
        assert completion.data == (await expecting.complete(**each)).data, f"schedule {seed}: {each}"


async def test_every_schedule_ends_in_the_same_bytes(tmp_path: Path):
    engine, authority = TextEngine(rows=16, step_seconds=0.01), TestAuthority(tmp_path / "ours")
    async with (
        Dragoman(TextEngine()) as expecting,
        serving(engine, security=authority.mutual(Role.VERIFIER)) as (verifier, address),
        Client(address, security=authority.mutual(Role.CLIENT)) as near,
        FaultProxy(address.host, address.port, CONDITIONS[0]) as first,
        FaultProxy(address.host, address.port, CONDITIONS[1]) as second,
        drafting(Address.parse(first.address, field="proxy"), security=authority.mutual(Role.DRAFTER, "a")),
        drafting(
            Address.parse(second.address, field="proxy"),
            TextDrafter(salt=3),
            security=authority.mutual(Role.DRAFTER, "b"),
        ),
    ):
        await drafters(verifier, 2)
        for seed in range(SCHEDULES):
            await run_schedule(seed, near, [first, second], expecting)
            await baseline(verifier, engine)
        await drafters(verifier, 2)  # both are back


async def persistent(client: Client, asked: dict[str, Any]) -> Completion:
    """Again if not even the first bytes came."""
    while True:
        with contextlib.suppress(ConnectionFailedError):
            return await client.complete(**asked)


async def test_a_client_whose_link_fails_goes_on_where_it_was(tmp_path: Path):
    """Its texts are resumed from the bytes that it has; what the verifier wrote for a lost client is given up."""
    engine, authority = TextEngine(step_seconds=0.01), TestAuthority(tmp_path / "ours")
    async with (
        Dragoman(TextEngine()) as expecting,
        serving(engine, security=authority.mutual(Role.VERIFIER)) as (verifier, address),
        FaultProxy(address.host, address.port, CONDITIONS[0]) as proxy,
        Client(
            Address.parse(proxy.address, field="proxy"),
            security=authority.mutual(Role.CLIENT),
            resume=True,
            patience=PATIENCE,
        ) as far,
        drafting(address, security=authority.mutual(Role.DRAFTER)),
    ):
        await drafters(verifier, 1)
        for seed in range(-(-SCHEDULES // 4)):  # which take longer
            chance = random.Random(seed)
            asked = drawn(chance)
            work = asyncio.create_task(persistent(far, asked))
            for _ in range(
                chance.randrange(1, 9)
            ):  # an end of trouble: a busy machine may not even connect between two
                await asyncio.sleep(chance.uniform(0.05, 0.4))
                proxy.reset()
            async with asyncio.timeout(2 * PATIENCE):
                completion = await work
            assert completion.data == (await expecting.complete(**asked)).data, f"schedule {seed}: {asked}"
            await baseline(verifier, engine)
