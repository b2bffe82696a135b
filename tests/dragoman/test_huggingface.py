"""``generate`` with remote drafters is ``generate``: token by token where it is greedy, and in every argument."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LogitsProcessor, StoppingCriteria, StopStringCriteria, TextIteratorStreamer

from drafter_service.draft_source import Drafter
from drafter_service.fleet_member import DrafterMember
from drafter_service.loading import load_drafter
from dragoman import DragomanError, FleetClient, RemoteDrafting
from language_models.causal_lm import CausalLM
from language_models.weights import resolve
from tests.support.coordinators import coordinating, running
from tests.support.held_models import PATIENT, Held, drafted_by, hold
from tests.support.service_drivers import drafting as drafting_for
from tests.support.tiny_models import CORPUS
from transport.address import Address

PROMPTS = [CORPUS[at : at + 12].lstrip() for at in range(0, 20 * 14, 14)]
assert len(set(PROMPTS)) == 20


@pytest.fixture(scope="module")
def held(tiny_qwen2: Path) -> Held:
    return hold(tiny_qwen2)


def drafter_of(path: Path) -> Drafter:
    return load_drafter(str(path), dtype="float32", threads=1)


@pytest.fixture
async def drafting(held: Held, tiny_llama: Path):
    """With a drafter of another vocabulary that has dialled in."""
    async with drafted_by(held, drafter_of(tiny_llama)) as drafting:
        yield drafting


async def test_twenty_prompts_are_continued_as_without_drafter(held: Held, drafting: RemoteDrafting):
    accepted = 0
    for prompt in PROMPTS:
        written = await held.write(prompt, custom_generate=drafting, max_new_tokens=32)
        accepted += drafting.last.accepted_tokens
        assert drafting.last.tokens == written.shape[1] - held.ids(prompt).shape[1]
        assert torch.equal(written, await held.write(prompt, max_new_tokens=32)), prompt
    assert accepted > 40, "there was nothing to verify"


SETTINGS: list[dict[str, Any]] = [
    {"repetition_penalty": 1.4},
    {"no_repeat_ngram_size": 2, "min_new_tokens": 20},
    {"bad_words_ids": [[5], [17, 30]], "suppress_tokens": [9]},
    {"prefix_allowed_tokens_fn": lambda _, ids: list(range(40, 300, 1 + len(ids) % 2))},
    {"eos_token_id": [2, 60, 61, 62]},
    {"max_length": 19, "max_new_tokens": None},
    {"return_dict_in_generate": True, "output_scores": True, "output_logits": True},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: next(iter(settings)))
async def test_settings_of_generate_hold(held: Held, drafting: RemoteDrafting, settings: dict[str, Any]):
    settings = {"max_new_tokens": 24, **settings}
    for prompt in PROMPTS[:4]:
        written = await held.write(prompt, custom_generate=drafting, **settings)
        plain = await held.write(prompt, **settings)
        if settings.get("return_dict_in_generate"):
            for ours, theirs in ((written.scores, plain.scores), (written.logits, plain.logits)):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
            assert written.past_key_values is None and type(written) is type(plain)
            written, plain = written.sequences, plain.sequences
        assert torch.equal(written, plain)


class Recorder(LogitsProcessor):
    """Remembers what it was called with, and changes it."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.seen.append(input_ids[0].tolist())
        scores[:, len(self.seen) % 7 :: 7] -= 1.5  # in place, and by how often it was called
        return scores


async def test_a_processor_that_remembers_is_called_as_without_drafter(held: Held, drafting: RemoteDrafting):
    ours, theirs = Recorder(), Recorder()
    written = await held.write(PROMPTS[0], custom_generate=drafting, max_new_tokens=32, logits_processor=[ours])
    assert drafting.last.accepted_tokens > 0
    plain = await held.write(PROMPTS[0], max_new_tokens=32, logits_processor=[theirs])
    assert torch.equal(written, plain) and ours.seen == theirs.seen


async def test_drafters_are_told_the_conversation(held: Held, drafting: RemoteDrafting):
    """The prompt's own text is not that of the drafter's template."""
    messages = [{"role": "user", "content": "The heron"}]
    prompt = held.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    told: dict[str, Any] = {"messages": messages, "template_kwargs": {"enable_thinking": False}}
    written = await held.write(prompt, custom_generate=drafting, max_new_tokens=16, **told)
    assert drafting.last.draft_tokens > 0
    assert torch.equal(written, await held.write(prompt, custom_generate=drafting, max_new_tokens=16))


async def test_a_coordinator_sends_drafters_and_no_clients(held: Held, tiny_llama: Path):
    async with coordinating() as (_, at):
        drafter = DrafterMember(drafter_of(tiny_llama), at, name="d", instance="d1")
        remote = RemoteDrafting(held.model, held.tokenizer, "127.0.0.1:0", coordinator=str(at), plan=PATIENT)
        await asyncio.to_thread(remote.__enter__)
        try:
            async with running(drafter), FleetClient(str(at), patience=0.0) as client:
                await asyncio.to_thread(remote.wait_for_drafters, seconds=120)
                written = await held.write(PROMPTS[0], custom_generate=remote, max_new_tokens=32)
                assert remote.last.accepted_tokens > 0
                with pytest.raises(DragomanError):
                    await client.complete("The heron", max_tokens=4)
        finally:
            await asyncio.to_thread(remote.close)
    assert torch.equal(written, await held.write(PROMPTS[0], max_new_tokens=32))


async def test_where_all_rows_of_a_step_are_drawn_at_once_these_are_drawn_one_by_one(
    held: Held, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
):
    """As on a GPU."""
    monkeypatch.setattr(CausalLM, "draws_all_rows", True)
    async with drafted_by(held, drafter_of(tiny_llama)) as drafting:
        for prompt in PROMPTS[:3]:
            written = await held.write(prompt, custom_generate=drafting, max_new_tokens=24)
            assert torch.equal(written, await held.write(prompt, max_new_tokens=24))
        assert drafting.last.draft_tokens > 0


class After(StoppingCriteria):
    """Calls, and may end the text."""

    def __init__(self, call: Callable[[list[int]], bool]) -> None:
        self.call = call

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.tensor([self.call(input_ids[0].tolist())])


async def test_stopping_criteria_end_the_text_where_they_would_without_drafter(held: Held, drafting: RemoteDrafting):
    strings = StopStringCriteria(held.tokenizer, ["b\n", " fish"])
    for criterion in (strings, After(lambda ids: sum(ids) % 11 == 3)):
        for prompt in PROMPTS[:4]:
            written = await held.write(
                prompt, custom_generate=drafting, max_new_tokens=48, stopping_criteria=[criterion]
            )
            assert torch.equal(written, await held.write(prompt, max_new_tokens=48, stopping_criteria=[criterion]))
    assert drafting.last.tokens < 48


async def test_a_streamer_gets_the_text_and_its_end(held: Held, drafting: RemoteDrafting):
    for options in ({}, {"custom_generate": drafting}):
        streamer = TextIteratorStreamer(held.tokenizer, timeout=120)
        writing = asyncio.create_task(held.write("The heron", max_new_tokens=24, streamer=streamer, **options))
        pieces = await asyncio.to_thread(list, streamer)
        assert "".join(pieces) == held.tokenizer.decode((await writing)[0], skip_special_tokens=True)


async def test_a_drafter_that_is_lost_in_mid_text_costs_nothing(held: Held, tiny_llama: Path):
    loop, lost = asyncio.get_running_loop(), asyncio.Event()
    with RemoteDrafting(held.model, held.tokenizer, "127.0.0.1:0", plan=PATIENT, lookup=False) as remote:

        async def draft() -> None:
            async with drafting_for(Address.parse(remote.address, field="listen"), drafter_of(tiny_llama)):
                await lost.wait()

        def lose(ids: list[int]) -> bool:
            if len(ids) == 20:
                assert remote.drafters
                loop.call_soon_threadsafe(lost.set)
                while remote.drafters:
                    threading.Event().wait(0.01)
            return False

        task = asyncio.create_task(draft())
        await asyncio.to_thread(remote.wait_for_drafters, seconds=120)
        options = {"max_new_tokens": 48, "stopping_criteria": [After(lose)]}
        written = await held.write(PROMPTS[0], custom_generate=remote, **options)
        await task
        assert 0 < remote.last.accepted_tokens < 40
    assert torch.equal(written, await held.write(PROMPTS[0], max_new_tokens=48))


@pytest.mark.models
@pytest.mark.slow
async def test_a_real_model_with_a_lookup_as_drafter():
    held = hold(Path(resolve("smollm2-135m").source))
    prompt = "The capital of France is Paris. The capital of Italy is Rome. The capital of Spain is"
    async with drafted_by(held, load_drafter("lookup"), plan=None) as drafting:
        written = await held.write(prompt, custom_generate=drafting, max_new_tokens=12)
        assert torch.equal(written, await held.write(prompt, max_new_tokens=12))
    assert drafting.last.tokens == 12
