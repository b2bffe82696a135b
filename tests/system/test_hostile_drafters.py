"""A drafter with a good certificate that does harm, beside an honest one: same bytes, and who goes too far is cut off,
with a metric and a line of the audit log.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.certificates import security_options
from benchmarks.hostile_drafters import Attack, HostileDrafter
from benchmarks.ports import free_port
from dragoman.client import Client
from dragoman.processes import child
from dragoman.taking_turns import TAKING_TURNS_OPTIONS
from speculation.sampling.params import SamplingParams
from tests.support.certificates import TestAuthority
from tests.support.service_drivers import PATIENCE, described
from transport.address import Address
from transport.identity import Role

pytestmark = [pytest.mark.process, pytest.mark.slow]

SEEDS = range(3)
TOKENS = 60
#: What is cut off, and the quota that it exceeds; "": gRPC itself ends what is larger than any message may be, and the
#: stream is counted as one that broke. The others break no rule: they cost what looking at their spans costs, for which
#: there is a budget.
CUT_OFF = {
    Attack.FLOOD: "messages_of_one_drafter",
    Attack.GARBAGE: "malformed_messages_of_one_drafter",
    Attack.NAMES: "malformed_messages_of_one_drafter",
    Attack.STORM: "arrivals_of_one_drafter",
    Attack.HUGE: "",
}


@dataclass
class Pair:
    """A verifier with an honest drafter."""

    address: str
    client: Client
    metrics: str
    audit: Path

    def refused(self) -> dict[str, float]:
        """By quota."""
        return self.counted("dragoman_refused_total", "quota")

    def ended(self) -> dict[str, float]:
        """Streams of drafters, by how they ended."""
        return self.counted("dragoman_drafter_streams_ended_total", "ending")

    async def ended_beyond(self, count: float) -> None:
        """Until more of them have: the verifier's end of a stream comes after the attacker's."""
        async with asyncio.timeout(PATIENCE):
            while sum(self.ended().values()) <= count:
                await asyncio.sleep(0.05)

    def counted(self, name: str, label: str) -> dict[str, float]:
        """A metric by one of its labels."""
        with urllib.request.urlopen(self.metrics, timeout=10) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        samples = [sample for family in families for sample in family.samples]
        return {one.labels[label]: one.value for one in samples if one.name == name}

    def audited(self, name: str) -> list[dict[str, object]]:
        """What the audit log says of a drafter's identity."""
        lines = [json.loads(line) for line in self.audit.read_text().splitlines()]
        return [line for line in lines if name in str(line.get("by"))]

    async def texts(self, *, draft: bool = True) -> list[bytes]:
        """All at once."""
        asked = (
            self.client.complete(
                "The heron",
                sampling=SamplingParams(temperature=1.0, seed=seed),
                max_tokens=TOKENS,
                ignore_end=True,
                draft=draft,
            )
            for seed in SEEDS
        )
        return [completion.data for completion in await asyncio.gather(*asked)]


@contextlib.asynccontextmanager
async def pair(authority: TestAuthority, target: Path, drafter: Path, folder: Path) -> AsyncIterator[Pair]:
    port, audit = free_port(), folder / "audit.jsonl"
    common = ("--dtype=float32", "--threads=1")
    serving = ["verifier", f"--model={target}", "--listen=127.0.0.1:0", f"--metrics-port={port}", *common]
    serving += [f"--audit-log={audit}", *TAKING_TURNS_OPTIONS, *security_options(authority.mutual(Role.VERIFIER))]
    async with child("verifier", serving) as verifier:
        address = (await verifier.ready())["address"]
        drafting = ["drafter", f"--model={drafter}", f"--verifier={address}", *common]
        async with (
            child("drafter", [*drafting, *security_options(authority.mutual(Role.DRAFTER, "honest"))]) as honest,
            Client(address, security=authority.mutual(Role.CLIENT)) as client,
        ):
            await honest.ready()
            await described(client, drafters=1)
            yield Pair(address, client, f"http://127.0.0.1:{port}/metrics", audit)


async def test_a_hostile_drafter_changes_no_byte_and_is_cut_off(tiny_qwen2: Path, tiny_llama: Path, tmp_path: Path):
    authority = TestAuthority(tmp_path / "ca")
    async with pair(authority, tiny_qwen2, tiny_llama, tmp_path) as beside:
        alone = await beside.texts(draft=False)
        assert len(set(alone)) == len(SEEDS)
        for attack in Attack:
            name = f"hostile-{attack}"
            security = authority.mutual(Role.DRAFTER, name)
            hostile = HostileDrafter(Address.parse(beside.address, field="address"), security=security)
            before, ended = beside.refused(), beside.ended()
            attacking = asyncio.create_task(
                hostile.run(attack, PATIENCE if attack in CUT_OFF else 4.0, once=attack in CUT_OFF)
            )
            while not attacking.done():
                assert await beside.texts() == alone, attack
            outcome = await attacking
            assert outcome.dialled > 0
            if attack in CUT_OFF:
                assert outcome.ended, attack  # by a status that a write into the ended stream may hide
                await beside.ended_beyond(sum(ended.values()))
                assert beside.audited(name)[-1]["event"] in ("refused", "drafter left")
            else:
                assert not outcome.ended, (attack, outcome)
            if quota := CUT_OFF.get(attack):
                assert beside.refused()[quota] > before[quota], attack
                assert "refused" in {line["event"] for line in beside.audited(name)}, attack
            elif attack is Attack.HUGE:
                assert beside.ended()["broken"] > ended["broken"]
                assert beside.audited(name)[-1]["ending"] == "broken"
            await described(beside.client, sessions=0, kv_cache_bytes=0, drafters=1)
        assert not [line for line in beside.audited("honest") if line["event"] == "refused"]
