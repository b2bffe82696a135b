"""Processors and criteria of the user's own may raise what they like and look as they like, as without drafter."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import StoppingCriteria

from drafter_service.loading import load_drafter
from dragoman import RemoteDrafting, SessionError
from language_models.loaded_model import opened
from speculation.protocol.generation import Chunk, GenerationRequest
from speculation.protocol.messages import Prompt
from tests.support.held_models import Held, drafted_by, hold
from verifier_service.local_text import LocalText
from verifier_service.transformers_engine import TransformersEngine
from verifier_service.verifier import Verifier

PROMPT = "The heron"


@pytest.fixture(scope="module")
def held(tiny_llama: Path) -> Held:
    return hold(tiny_llama)


@pytest.fixture(scope="module")
def drafting(held: Held) -> Iterator[RemoteDrafting]:
    with RemoteDrafting(held.model, held.tokenizer, "127.0.0.1:0") as drafting:
        yield drafting


@pytest.fixture
async def drafted(held: Held, tiny_llama: Path) -> AsyncIterator[RemoteDrafting]:
    """Its drafter is the same model: nearly all is accepted."""
    async with drafted_by(held, load_drafter(str(tiny_llama), dtype="float32", threads=1)) as drafting:
        yield drafting


class Raises:
    """A processor that does, once the text is so long. In ids, the prompt's among them."""

    def __init__(self, error: BaseException, length: int) -> None:
        self.error, self.length = error, length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if input_ids.shape[1] >= self.length:
            raise self.error
        return scores


class Stops(StoppingCriteria):
    """Ends the text where it is so long. ``eos_token_id``: of the user's own, whatever it is to him."""

    def __init__(self, length: int, eos_token_id: Any = None) -> None:
        self.length, self.eos_token_id = length, eos_token_id

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        return torch.tensor([input_ids.shape[1] >= self.length])


@pytest.mark.parametrize(
    "kind", [asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, pytest.skip.Exception]
)
def test_whatever_a_processor_raises_comes_to_the_caller(
    held: Held, drafting: RemoteDrafting, kind: type[BaseException]
):
    ids, options = held.ids(PROMPT), {"custom_generate": drafting, "do_sample": False, "max_new_tokens": 12}
    error = kind("of the user's own")
    with pytest.raises(kind) as raised:
        held.model.generate(ids, logits_processor=[Raises(error, ids.shape[1] + 3)], **options)
    assert raised.value is error
    assert held.model.generate(ids, **options).shape[1] == ids.shape[1] + 12, "another text is not concerned"


@pytest.mark.parametrize("nan", [False, True])
async def test_what_a_processor_raises_behind_the_end_is_never_seen(held: Held, drafted: RemoteDrafting, nan: bool):
    def fail(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores * torch.nan if ids.shape[1] >= length else scores

    start = held.ids(PROMPT).shape[1]
    for length in range(start + 1, start + 12):
        processor = fail if nan else Raises(KeyError("too far"), length)
        options = {"stopping_criteria": [Stops(length)], "logits_processor": [processor], "max_new_tokens": 24}
        written = await held.write(PROMPT, custom_generate=drafted, **options)
        assert torch.equal(written, await held.write(PROMPT, **options))
        assert written.shape[1] == length


@pytest.mark.parametrize("ends", [2, None, "</s>", list(range(300))], ids=["int", "none", "text", "all"])
async def test_a_criterion_with_an_end_token_of_its_own_is_only_asked(held: Held, drafting: RemoteDrafting, ends: Any):
    """The text holds an end token, which does not end it."""
    start, end = held.ids(PROMPT).shape[1], held.model.generation_config.eos_token_id

    def write_the_end(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if ids.shape[1] == start + 3:
            scores[:, end] += 1e6
        return scores

    options = {"max_new_tokens": 24, "eos_token_id": None, "pad_token_id": 0, "logits_processor": [write_the_end]}
    options["stopping_criteria"] = [Stops(start + 7, ends)]
    written = await held.write(PROMPT, custom_generate=drafting, **options)
    assert written.shape[1] == start + 7
    assert torch.equal(written, await held.write(PROMPT, **options))


@pytest.mark.parametrize("kind", [asyncio.CancelledError, SystemExit])
async def test_a_local_text_whose_processor_ends_threads_or_tasks_fails_alone(held: Held, kind: type[BaseException]):

    def fail(generated: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
        raise kind

    request = GenerationRequest(prompt=Prompt(text=PROMPT), max_tokens=4)
    prompt = tuple(held.ids(PROMPT)[0].tolist())
    with opened(held.model, held.tokenizer) as causal:
        verifier = Verifier(TransformersEngine(causal, shares=False), local_only=True)
        try:
            with pytest.raises(SessionError, match=kind.__name__):
                await asyncio.wait_for(text_of(verifier, request, LocalText(prompt, fail)), 60)
            assert await text_of(verifier, request, LocalText(prompt, lambda ids, scores: scores))
        finally:
            verifier.shutdown()


async def text_of(verifier: Verifier, request: GenerationRequest, local: LocalText) -> bytes:
    async with contextlib.aclosing(verifier.generate(request, local)) as events:
        return b"".join([event.data async for event in events if isinstance(event, Chunk)])
