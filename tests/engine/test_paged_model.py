"""Drafting on the paged engine: the choices of the model itself, along any tree and after any correction."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from drafter_service.loading import load_drafter
from drafter_service.model_draft_source import ModelDraftSource
from drafter_service.model_drafter import ModelDrafter
from engine.paged_model import PagedModel
from engine.step_tables import MAX_DEPTH
from language_models.causal_lm import CausalLM
from language_models.continuation import TreeRows
from speculation.errors import InputError, LimitExceededError
from speculation.sampling.params import SamplingParams
from tests.support.paged_drafts import close, offer, paged
from tests.support.tiny_models import load_tiny


@pytest.fixture(params=["tiny_llama", "tiny_gemma"])
def folder(request) -> Path:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize(
    "sampling", [SamplingParams(), SamplingParams(temperature=0.9, seed=3, top_k=20, presence_penalty=0.5)]
)
@pytest.mark.parametrize("at_once", [False, True])
def test_a_session_is_drafted_as_by_the_model_itself(folder: Path, sampling: SamplingParams, at_once: bool):
    """Trees that grow branch by branch, verdicts that keep a branch with what follows it, corrections, long texts.

    ``at_once``: the draws behind all branches, as on a GPU.
    """
    models: list[CausalLM | PagedModel] = [load_tiny(folder), paged(folder)]
    models[1].draws_all_rows = at_once  # type: ignore[misc]
    sources = [ModelDrafter(model).open(offer(sampling)) for model in models]
    chance = random.Random(4)
    length = 4
    for turn in range(25):
        paths: list[tuple[int, ...]] = [()]
        for depth in range(chance.randrange(1, 5)):
            plain, found = [source.expand(paths, zero_width=0, choices=3) for source in sources]
            for expected, choices in zip(plain, found, strict=True):
                assert [(c.text, c.token, c.ends) for c in choices] == [(c.text, c.token, c.ends) for c in expected]
                assert [c.confidence for c in choices] == pytest.approx([c.confidence for c in expected], abs=1e-4)
            grown = [
                (*path, choice.token)
                for path, choices in zip(paths, plain, strict=True)
                for choice in choices
                if choice.token is not None and not choice.stops and not choice.ends
            ]
            if not grown:
                break
            longest = grown[: chance.randrange(1, 8 if depth else 4)]
            paths = longest
        path = paths[0][: chance.randrange(0, len(paths[0]) + 1)]
        text = None if turn % 3 else bytes(chance.choices(b"abc the. ", k=6))
        vocab = models[0].tokenizer.vocab
        length += len(vocab.text(path))
        for source in sources:
            source.move(path, length, text)
        length += len(text or b"")
        assert all(isinstance(source, ModelDraftSource) for source in sources)
        assert sources[0].text == sources[1].text  # type: ignore[attr-defined]
    for source in sources:
        source.close()
    engine = models[1].engine  # type: ignore[union-attr]
    assert engine.pool.free_pages == engine.pool.pages - 1


def test_more_branches_than_a_step_has_rows(folder: Path):
    plain, model = load_tiny(folder), paged(folder)
    caches: list[Any] = [plain.new_cache(), model.new_cache()]
    models: list[Any] = [plain, model]
    tokens = [7, 8, 9, *range(10, 155)]
    rows = []
    for one, cache in zip(models, caches, strict=True):
        one.prefill(list(range(5, 60)), cache)
        first = one.forward([3], cache)
        tree = TreeRows(cache.length, above=[[]] * len(tokens), depths=[0] * len(tokens))
        rows.append(torch.cat((first, one.forward_branches(tokens, cache, tree))))
    close(rows[1], rows[0])


def test_long_runs_and_rollbacks(folder: Path):
    plain, model = load_tiny(folder), paged(folder)
    text = [random.Random(2).randrange(5, 200) for _ in range(90)]
    cache = model.new_cache()
    model.prefill(text[:70], cache)
    model.forward([1, 2, 3], cache)
    cache.rollback(23)
    assert cache.length == 50 == cache.max_rollback
    close(model.forward(text[50:], cache), plain.forward(text, plain.new_cache())[50:])
    cache.close()
    assert cache.length == 0 and model.engine.pool.free_pages == model.engine.pool.pages - 1
    with pytest.raises(InputError, match="exceed the context"):
        model.forward([1] * (model.context_length + 1), cache)


def test_memory_that_is_full_is_an_error_with_a_remedy(tiny_llama: Path):
    model = paged(tiny_llama, kv_bytes=1 << 17)
    caches = [model.new_cache() for _ in range(5)]
    with pytest.raises(LimitExceededError, match="no room"):
        for cache in caches:
            model.prefill([5] * 100, cache)
    for cache in caches:
        cache.close()
    caches += [model.new_cache()]
    with pytest.raises(LimitExceededError, match="as many sessions"):
        for cache in caches:
            model.prefill([5], cache)
    for cache in caches:
        cache.close()
    assert model.engine.pool.free_pages == model.engine.pool.pages - 1


def test_a_draft_rests_where_a_tree_can_grow_no_deeper(tiny_llama: Path):
    model = paged(tiny_llama)
    source = ModelDrafter(model).open(offer(SamplingParams(temperature=1.5, seed=1)))
    path: tuple[int, ...] = ()
    while not (choice := source.expand([path], zero_width=0, choices=1)[0][0]).stops:
        assert len(path) <= MAX_DEPTH
        path = (*path, choice.token or 7)
    assert len(path) == MAX_DEPTH + 1
    source.move(path[:MAX_DEPTH], 4, None)
    assert not source.expand([()], zero_width=0, choices=1)[0][0].stops


def test_a_drafter_on_a_cpu_keeps_the_engine_of_transformers(tiny_llama: Path):
    drafter = load_drafter(str(tiny_llama), device="cpu", dtype="float32")
    assert isinstance(drafter, ModelDrafter) and isinstance(drafter.model, CausalLM)
    with pytest.raises(InputError, match=r"engine='paged': cannot run .*needs a GPU"):
        load_drafter(str(tiny_llama), device="cpu", dtype="float32", engine="paged")
