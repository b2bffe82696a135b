"""What a hostile or an unlucky guide may cost: its asker an error, and nobody else anything."""

from __future__ import annotations

import asyncio
import threading

import pytest

from speculation.errors import InputError, LimitExceededError, SessionError
from speculation.protocol.guide_spec import GuideSpec
from tests.support.guides import ODD, allowed, guide_for, write
from tests.support.text_models import TARGET_VOCAB
from verifier_service.guide_threads import GuideThreads
from verifier_service.guides import Guides

END = TARGET_VOCAB.end_ids[0]


async def test_what_takes_too_long_is_the_askers_fault_only_if_its_turn_came():
    threads: GuideThreads[int] = GuideThreads(waiting=4, seconds=1.0)
    held, both = threading.Event(), threading.Barrier(3)

    def slow() -> int:
        both.wait()
        held.wait()
        return 1

    slow_ones = [asyncio.create_task(threads.run(slow)) for _ in range(2)]
    await asyncio.to_thread(both.wait)  # no thread is free
    with pytest.raises(LimitExceededError, match="other guides are being compiled"):
        await threads.run(lambda: 2)
    for task in slow_ones:
        with pytest.raises(TimeoutError):
            await task
    leaving = asyncio.create_task(threads.run(lambda: 3))
    await asyncio.sleep(0)
    more = asyncio.create_task(threads.run(lambda: 4))
    await asyncio.sleep(0)
    with pytest.raises(LimitExceededError, match="4 guides are being compiled"):
        await threads.run(lambda: 5)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    held.set()
    assert await more == 4 and await threads.run(lambda: 6) == 6
    threads.close()


@pytest.mark.parametrize("forces", [True, False])
async def test_texts_of_one_guide_go_their_own_ways(forces: bool, monkeypatch: pytest.MonkeyPatch):
    """Also where what is forced takes too long to be known, so that it is left alone."""
    if not forces:
        monkeypatch.setattr("verifier_service.grammar_guide.FORCED_SECONDS", -1.0)
    guides = Guides(TARGET_VOCAB)
    try:
        first = await guides.compile(GuideSpec.regex("abc|xyz"))
        assert allowed(first) == {97, 120}
        first.advance(97)
        assert first.forced().data == (b"bc" if forces else b"")
        second = await guides.compile(GuideSpec.regex("abc|xyz"))
        assert second is not first and allowed(second) == {97, 120} and allowed(first) == {98}
        second.advance(120)
        assert second.forced().data == (b"yz" if forces else b"")
    finally:
        guides.close()


DEAD_END = 'start: "a" big | "b" "c"\nbig: ' + " | ".join(f'"w" "{number}x"' for number in range(2500))


async def test_a_draft_that_leads_to_a_limit_of_the_parser_harms_only_itself():
    guide = await guide_for(GuideSpec.grammar(DEAD_END))
    first, dead = guide.masks([(), (97,)])
    assert dead != first and allowed(guide) == {97, 98}
    assert not guide.fits((97, END)) and guide.fits((98,))
    guide.advance(98)
    assert allowed(guide) == {99}
    guide.advance(99)
    assert allowed(guide) == {END}


async def test_a_text_that_leads_there_is_an_error_as_without_drafts():
    for paths in ([()], [(), (97,)]):
        guide = await guide_for(GuideSpec.grammar(DEAD_END))
        guide.masks(paths)
        with pytest.raises(SessionError, match="cannot be held to its guide"):
            guide.advance(97)
            guide.masks([()])


async def test_thousands_of_choices():
    guide = await guide_for(GuideSpec.choice([f"w{number}x" for number in range(2500)]))
    write(guide, "w77")
    assert allowed(guide) >= {ord("x"), ord("1")}


@pytest.mark.parametrize(
    "grammar, words",
    [
        ("start: r0\n" + "".join(f"r{n}: r{n + 1}\n" for n in range(3000)) + 'r3000: "a"', "more than 1000 rules"),
        ("root ::= r0\n" + "".join(f'r{n} ::= "b" r{n + 1} | "x"\n' for n in range(600)), "more than 300 rules"),
        ("\n" * 65_000, "cannot be compiled"),
    ],
)
async def test_grammars_that_take_a_stack_or_a_minute_are_refused(grammar: str, words: str):
    with pytest.raises(InputError, match=words):
        await guide_for(GuideSpec.grammar(grammar))


async def test_a_chain_of_rules_has_the_stack_that_it_needs():
    chain = "start: r0\n" + "".join(f"r{n}: r{n + 1}\n" for n in range(990)) + 'r990: "a"'
    assert allowed(await guide_for(GuideSpec.grammar(chain))) == {97}


async def test_a_grammar_has_not_the_last_word():
    """On forcing, which would make a mask depend on how tokens cut the text, and on tokens that are no text."""
    forced = await guide_for(GuideSpec.grammar('%llguidance {"no_forcing": false}\nstart: "the cat"'))
    free = await guide_for(GuideSpec.grammar('start: "the cat"'))
    assert allowed(forced) == allowed(free) and 116 in allowed(free)
    special = await guide_for(GuideSpec.grammar("start: <[0-9]>+"), ODD)
    assert not allowed(special, vocab=ODD) & {4, 6, 7}


async def test_a_lone_surrogate_in_a_schema():
    with pytest.raises(InputError, match="cannot be compiled"):
        await guide_for(GuideSpec.json_schema('{"const": "\\ud800"}'))
