"""Who is trusted drafts under every rule; who is not sees no prompt that is kept for the others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dragoman import Client, Rule, SamplingParams
from speculation.errors import InputError
from tests.support.certificates import TestAuthority
from tests.support.service_drivers import baseline, drafters, drafting, eventually, serving
from tests.support.text_engine import TextEngine
from transport.address import Address
from transport.identity import Identity, Role
from transport.security import Security
from verifier_service.drafter_trust import DrafterTrust, PromptsTo
from verifier_service.verifier import Verifier

SAMPLING = SamplingParams(temperature=0.8, seed=3)
EDGE_1, EDGE_2 = Identity(Role.DRAFTER, "edge-1"), Identity(Role.DRAFTER, "edge-2")


def test_names_and_what_they_stand_for():
    nobody, one, all_of = DrafterTrust(), DrafterTrust(("edge-1",)), DrafterTrust(("edge-*", "spare"))
    assert [trust.trusts(EDGE_1) for trust in (nobody, one, all_of)] == [False, True, True]
    assert [trust.trusts(EDGE_2) for trust in (nobody, one, all_of)] == [False, False, True]
    assert [trust.trusts(None) for trust in (nobody, one, all_of)] == [True, False, False]
    kept = DrafterTrust(("edge-1",), PromptsTo.TRUSTED)
    for rule in Rule.concrete():
        assert one.allows(rule, trusted=True) and kept.allows(rule, trusted=True)
        assert one.allows(rule, trusted=False) == (rule in (Rule.RACE, Rule.EXACT))
        assert not kept.allows(rule, trusted=False)


@pytest.mark.parametrize(
    "trust, named",
    [(DrafterTrust(("edge-1",)), "trusted-drafters='edge-1'"), (DrafterTrust((), PromptsTo.TRUSTED), "prompts-to=")],
)
def test_names_need_somebody_to_ask_for_them(trust: DrafterTrust, named: str, tmp_path: Path):
    ours = TestAuthority(tmp_path).mutual(Role.VERIFIER)
    for security in (Security(), ours.model_copy(update={"tls_ca": None})):
        with pytest.raises(InputError, match=named):
            trust.check(security)
        DrafterTrust().check(security)
    trust.check(ours)
    trust.check(ours.model_copy(update={"tls_ca": None, "tokens": "tokens"}))


@contextlib.asynccontextmanager
async def with_two_drafters(
    folder: Path, engine: TextEngine, trust: DrafterTrust
) -> AsyncIterator[tuple[Verifier, Address, Client]]:
    """In mutual TLS, as edge-1 and edge-2."""
    authority = TestAuthority(folder)
    first, second = (authority.mutual(Role.DRAFTER, name) for name in ("edge-1", "edge-2"))
    async with (
        serving(engine, security=authority.mutual(Role.VERIFIER), trust=trust) as (verifier, address),
        drafting(address, security=first),
        drafting(address, security=second),
        Client(address, security=authority.mutual(Role.CLIENT)) as client,
    ):
        await drafters(verifier, 2)
        yield verifier, address, client
        await baseline(verifier, engine)


@pytest.mark.parametrize(
    "rule, prompts_to, trusted, offered",
    [
        (Rule.RACE, PromptsTo.ALL, ("edge-1",), [False, True]),
        (Rule.EXACT, PromptsTo.ALL, (), [False, False]),
        (Rule.RACE, PromptsTo.TRUSTED, ("edge-1",), [True]),
        (Rule.RACE, PromptsTo.TRUSTED, (), []),
        (Rule.REJECTION, PromptsTo.ALL, ("edge-1",), [True]),
        (Rule.REJECTION, PromptsTo.ALL, ("*",), [True, True]),
        (Rule.STRING_REJECTION, PromptsTo.ALL, (), []),
    ],
)
async def test_a_session_is_offered_to_those_who_may_have_it(
    rule: Rule, prompts_to: PromptsTo, trusted: tuple[str, ...], offered: list[bool], tmp_path: Path
):
    engine = TextEngine()
    async with with_two_drafters(tmp_path, engine, DrafterTrust(trusted, prompts_to)) as (verifier, _, client):
        engine.gate.clear()
        text = asyncio.create_task(client.complete("a story: ", rule=rule, sampling=SAMPLING, max_tokens=30))
        await eventually(lambda: verifier.sessions)
        [opened] = verifier.sessions
        excluded = 2 - len(offered)
        await eventually(lambda: len(opened.drafters) + len(opened.drafters.declined) == 2)
        assert sorted(link.trusted for link in opened.drafters) == offered
        assert len(opened.drafters.declined) == excluded
        engine.gate.set()
        done = await text
        if rule in (Rule.RACE, Rule.EXACT):
            alone = await client.complete("a story: ", rule=rule, sampling=SAMPLING, max_tokens=30, draft=False)
            assert done.data == alone.data
        if not offered:
            assert not any(source.draft_tokens for source in done.stats.sources if source.name)


async def test_a_coordinators_order_does_not_overrule_it(tmp_path: Path):
    engine = TextEngine()
    trust = DrafterTrust(("edge-1",), PromptsTo.TRUSTED)
    async with with_two_drafters(tmp_path, engine, trust) as (verifier, _, client):
        engine.gate.clear()
        text = asyncio.create_task(client.complete("a story: ", sampling=SAMPLING, max_tokens=30))
        await eventually(lambda: verifier.sessions and len(verifier.sessions[0].drafters) == 1)
        [opened] = verifier.sessions
        verifier.roster.place(opened.name, frozenset(link.number for link in verifier.roster.links))
        assert [link.trusted for link in opened.drafters] == [True]
        engine.gate.set()
        await text


@pytest.mark.parametrize("trusted, rules", [((), {Rule.RACE}), (("*",), {Rule.RACE, Rule.REJECTION})])
async def test_a_rule_that_is_left_open_is_the_race_where_nobody_is_trusted(
    trusted: tuple[str, ...], rules: set[Rule], tmp_path: Path
):
    async with with_two_drafters(tmp_path, TextEngine(), DrafterTrust(trusted)) as (_, _, client):
        asked = [client.complete("a story: ", rule=Rule.AUTO, sampling=SAMPLING, max_tokens=30) for _ in range(20)]
        assert {(await each).stats.rule for each in asked} == rules
