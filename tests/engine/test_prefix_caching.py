"""Prompts that begin alike share pages: with the same logits and texts as without, and no page is ever lost."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from drafter_service.model_drafter import ModelDrafter
from dragoman.client import Client
from dragoman.taking_turns import TAKING_TURNS
from engine.kv_pages import SCRATCH, PagePool
from engine.paged_engine import PagedEngine
from engine.paged_slot import PagedSlot
from engine.prefix_names import prefix_names
from engine.step_tables import PAGE
from speculation.drafts.candidates import CandidateTree
from speculation.errors import LimitExceededError
from speculation.protocol.messages import Prompt
from speculation.sampling.params import Rule, SamplingParams
from tests.support.service_drivers import drafters, drafting, serving
from tests.support.tiny_models import load_tiny

KV_BYTES = 4 << 20
PREFIX = [random.Random(3).randrange(5, 200) for _ in range(130)]


def prefilled(engine: PagedEngine, prompt: list[int]) -> tuple[PagedSlot, int]:
    """A slot that holds the prompt, and how many of its positions were another's."""
    before = engine.shared_positions
    slot = engine.open(prompt)
    return slot, engine.shared_positions - before


@pytest.mark.parametrize("model", ["tiny_llama", "tiny_gemma"])
@pytest.mark.parametrize("left", [False, True])
def test_what_is_shared_has_the_logits_of_what_is_not(request, monkeypatch: pytest.MonkeyPatch, model: str, left: bool):
    """Also from pages that nobody holds any more, and from within a chunk of a prefill pass."""
    monkeypatch.setattr("engine.paged_engine.PREFILL_ROWS", 96)
    folder: Path = request.getfixturevalue(model)
    engine = PagedEngine(load_tiny(folder), kv_bytes=KV_BYTES, rows=32)
    plain = PagedEngine(load_tiny(folder), kv_bytes=KV_BYTES, rows=32, prefix_caching=False)
    first, none = prefilled(engine, [*PREFIX, 7])
    assert none == 0
    if left:
        first.close()
    for length in (130, 110, 60, 99, 119, 15):
        other = [*PREFIX[:length], *range(5, 25)]
        slot, found = prefilled(engine, other)
        assert found == length // PAGE * PAGE, length
        alone = plain.open(other)
        chain = CandidateTree.chain([11, 12, 13])
        torch.testing.assert_close(slot.step(24, chain), alone.step(24, chain), rtol=1e-4, atol=1e-4)
        for opened in (slot, alone):
            opened.close()
    assert plain.shared_positions == 0
    first.close()
    assert engine.pool.free_pages == plain.pool.free_pages


def test_who_comes_while_the_first_still_runs_its_prompt_shares_what_is_there(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("engine.paged_engine.PREFILL_ROWS", 16)
    engine = PagedEngine(load_tiny(tiny_llama), kv_bytes=KV_BYTES, rows=16)
    prompt = PREFIX[:70]
    first, second = engine.begin(prompt, 100), engine.begin(prompt, 100)
    held = engine.pool.free_pages
    for _ in range(2):
        engine.prefill([first])
    engine.prefill([second])
    assert second.prefill_left == 69 - 48 and engine.shared_positions == second.shared_positions == 32
    assert engine.pool.free_pages == held + 2, "its own pages for these are free again"
    while first.prefill_left or second.prefill_left:
        engine.prefill([first, second])
    assert engine.shared_positions >= 32
    step = CandidateTree.chain([8, 9])
    torch.testing.assert_close(first.step(prompt[-1], step), second.step(prompt[-1], step), rtol=1e-4, atol=1e-4)
    first.close()
    again = second.step(prompt[-1], step)
    third = engine.open(prompt)
    torch.testing.assert_close(third.step(prompt[-1], step), again, rtol=1e-4, atol=1e-4)


def test_of_prompts_that_begin_alike_and_come_together_one_is_run(tiny_llama: Path):
    engine = PagedEngine(load_tiny(tiny_llama), kv_bytes=KV_BYTES, rows=16)
    prompts = [[*PREFIX[:100], number] for number in range(5, 9)] + [[9, 8, 7]]
    slots = [engine.begin(prompt, len(prompt)) for prompt in prompts]
    engine.prefill(slots)
    assert [slot.prefill_left for slot in slots] == [0, 100, 100, 100, 0]
    engine.prefill(slots)
    assert [slot.prefill_left for slot in slots] == [0, 0, 0, 0, 0]
    assert engine.shared_positions == 3 * 96
    for slot, prompt in zip(slots, prompts, strict=True):
        alone = engine.open(prompt)
        draft = CandidateTree.chain([8, 9])
        torch.testing.assert_close(slot.step(prompt[-1], draft), alone.step(prompt[-1], draft), rtol=1e-4, atol=1e-4)
        alone.close()
        slot.close()
    assert engine.pool.free_pages == engine.pool.pages - 1


def test_what_was_written_after_a_prompt_is_shared_with_nobody(tiny_llama: Path):
    """It ran in steps, whose bits are others than a prompt's."""
    engine = PagedEngine(load_tiny(tiny_llama), kv_bytes=KV_BYTES, rows=16)
    slot = engine.begin(PREFIX[:40], 200, written=PREFIX[40:])
    while slot.prefill_left:
        engine.prefill([slot])
    assert slot.length == len(PREFIX) - 1
    _, found = prefilled(engine, [*PREFIX, 7])
    assert found == 32, "whole pages of the prompt, as far as steps had no part in them"


def test_names_are_of_all_tokens_so_far():
    tokens = list(range(3 * PAGE + 5))
    names = prefix_names(tokens)
    assert len(names) == len(set(names)) == 3
    assert prefix_names(tokens[: 2 * PAGE]) == names[:2]
    assert not set(prefix_names([99, *tokens[1:]])) & set(names), "a page follows what it follows"
    assert prefix_names(tokens[: PAGE - 1]) == []


def test_prompts_share_with_those_of_their_salt_only():
    tokens = list(range(3 * PAGE))
    names = {salt: prefix_names(tokens, salt) for salt in ("", "a", "b")}
    assert len({name for each in names.values() for name in each}) == 9
    assert names["a"] == prefix_names(tokens, "a")
    going_on = prefix_names(tokens[PAGE:], names[""][0].decode("latin-1"))
    assert not set(going_on) & set(names[""]), "a salt cannot be chosen that goes on where a page ends"


def test_a_salt_goes_with_a_slot(tiny_llama: Path):
    engine = PagedEngine(load_tiny(tiny_llama), kv_bytes=KV_BYTES, rows=16)
    found = []
    for salt in ("", "a", "a", "b", ""):
        slot = engine.begin(PREFIX, 200, salt=salt)
        while slot.prefill_left:
            engine.prefill([slot])
        found.append(slot.shared_positions)
        slot.close()
    whole = (len(PREFIX) - 1) // PAGE * PAGE
    assert found == [0, 0, whole, 0, whole]


def test_pages_that_nobody_holds_go_when_room_is_needed_the_ends_of_texts_first(tiny_llama: Path):
    pool = PagePool(6)
    early, late = pool.allocate(3), pool.allocate(1)
    for number, page in enumerate((*early, *late)):
        pool.name(page, bytes([number]))
    pool.free(early)
    pool.free(late)
    assert pool.free_pages == 5
    pool.allocate(2)  # the empty one, and one of those left longest ago: the last of that text
    assert pool.share(b"\2") is None
    assert [pool.share(bytes([number])) for number in (0, 1, 3)] == [*early[:2], *late]
    with pytest.raises(LimitExceededError, match="1 page is needed, 0 of 5 are free"):
        pool.allocate(1)


@given(st.lists(st.tuples(st.sampled_from(["allocate", "free", "name", "share"]), st.integers(0, 9)), max_size=60))
def test_every_page_is_empty_left_or_held(operations: list[tuple[str, int]]):
    pool = PagePool(8)
    held: list[list[int]] = []
    content: dict[int, bytes] = {}
    for kind, number in operations:
        if kind == "allocate":
            free, count = pool.free_pages, number % 4
            if count <= free:
                held.append(pool.allocate(count))
                for page in held[-1]:
                    content.pop(page, None)
            else:
                with pytest.raises(LimitExceededError):
                    pool.allocate(count)
        elif kind == "free" and held:
            pool.free(held.pop(number % len(held)))
        elif kind == "name" and held and held[number % len(held)]:
            page = held[number % len(held)][0]
            if page not in content:
                content[page] = bytes([number % 3])
                pool.name(page, content[page])
        elif kind == "share":
            name = bytes([number % 3])
            shared = pool.share(name)
            if shared is not None:
                assert content[shared] == name
                held.append([shared])
        holders = Counter(page for pages in held for page in pages)
        assert SCRATCH not in holders and pool.free_pages == 7 - len(holders)
    for pages in held:
        pool.free(pages)
    assert pool.free_pages == 7 and sorted(pool.allocate(7)) == list(range(1, 8))


async def test_a_thousand_sessions_dropped_at_random_leave_every_page(tiny_llama: Path):
    """In mid-prompt, in mid-text or at the end, many with the same beginning, in memory that is too small for all."""
    engine = PagedEngine(load_tiny(tiny_llama), kv_bytes=1 << 18, rows=16)
    whole = engine.pool.free_pages
    chance = random.Random(4)
    begun = ["The heron waits. ", "def add(a, b):\n    return ", "x"]
    async with serving(engine, max_sessions=1000) as (verifier, address), Client(str(address)) as client:
        prompt = begun[0] * 4 + "So"
        expected = await client.complete(prompt, max_tokens=12)

        async def one(number: int) -> None:
            text = chance.choice(begun) * chance.randrange(1, 5) + str(number % 7)
            asked = asyncio.ensure_future(client.complete(text, max_tokens=chance.randrange(1, 16)))
            if chance.random() < 0.8:
                await asyncio.sleep(chance.random() * 0.3)
                asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)

        for start in range(0, 1000, 50):
            await asyncio.gather(*(one(number) for number in range(start, start + 50)))
        assert (await client.complete(prompt, max_tokens=12)).data == expected.data
        while verifier.sessions:
            await asyncio.sleep(0.01)
    assert engine.pool.free_pages == whole and engine.shared_positions > 0


async def test_thirty_two_at_once_write_what_each_writes_alone(tiny_llama: Path):
    """Mixed rules, greedy and seeded, half of them with a drafter's drafts, all prompts beginning alike."""
    rules = [Rule.RACE, Rule.EXACT, Rule.REJECTION, Rule.STRING_REJECTION]
    asked: list[dict[str, Any]] = [
        {
            "prompt": Prompt(text="The heron waits. " * 5 + f"It is {number % 3}"),
            "sampling": SamplingParams(temperature=0.9 * (number % 4 > 0), seed=number),
            "rule": Rule.RACE if number % 2 else rules[number // 2 % 4],
            "draft": number % 2 == 1,
            "max_tokens": 24,
        }
        for number in range(32)
    ]
    async with (
        serving(PagedEngine(load_tiny(tiny_llama), kv_bytes=KV_BYTES, prefix_caching=False)) as (_, address),
        Client(str(address)) as client,
    ):
        alone = [(await client.complete(**request)).data for request in asked]
    engine = PagedEngine(load_tiny(tiny_llama), kv_bytes=KV_BYTES)
    whole = engine.pool.free_pages
    waiting = replace(TAKING_TURNS, patience=10.0)  # or on a busy machine no draft would come in time
    async with (
        serving(engine, plan=waiting, adaptive=False) as (verifier, address),
        Client(str(address)) as client,
    ):
        drafter = ModelDrafter(load_tiny(tiny_llama))
        async with drafting(address, drafter, max_sessions=32):
            await drafters(verifier, 1)
            together = await asyncio.gather(*(client.complete(**request) for request in asked))
            assert [done.data for done in together] == alone
            assert sum(done.stats.accepted_tokens for done in together) > 0
            assert sum(done.stats.spans for done in together) > 0
    assert engine.shared_positions > 0 and engine.pool.free_pages == whole
