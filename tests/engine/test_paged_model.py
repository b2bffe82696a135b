"""Drafting on the paged engine: the choices of the model itself, along any tree and after any correction."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from drafter_service.draft_source import Expansion
from drafter_service.loading import load_drafter
from drafter_service.model_draft_source import ModelDraftSource
from drafter_service.model_drafter import ModelDrafter
from engine.paged_model import PagedModel
from engine.step_tables import MAX_DEPTH, SequenceRows
from language_models.causal_lm import CausalLM
from speculation.errors import InputError, LimitExceededError
from speculation.protocol.messages import Prompt, SessionOffer, SpeculationPlan
from speculation.sampling.params import Rule, SamplingParams
from tests.support.tiny_models import load_tiny

KV_BYTES = 4 << 20


@pytest.fixture(params=["tiny_llama", "tiny_gemma"])
def folder(request) -> Path:
    return request.getfixturevalue(request.param)


def paged(folder: Path, **options: int) -> PagedModel:
    return PagedModel(load_tiny(folder), max_sessions=4, kv_bytes=options.get("kv_bytes", KV_BYTES))


def offer(sampling: SamplingParams, rule: Rule = Rule.RACE) -> SessionOffer:
    return SessionOffer(
        session="s",
        prompt=Prompt(text="The heron waits and"),
        sampling=sampling,
        rule=rule,
        committed=b" the",
        zero_width=0,
        plan=SpeculationPlan(),
    )


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


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


def tokens_of(answer: Any) -> list[list[int | None]]:
    """Their shares differ in the last digits, as rows of passes of other sizes do."""
    return [[choice.token for choice in row] for row in answer]


SAMPLINGS = (
    SamplingParams(),
    SamplingParams(temperature=0.9, seed=3, top_k=20, presence_penalty=0.5),
    SamplingParams(temperature=1.2, seed=4, top_p=0.9),
    SamplingParams(repetition_penalty=1.3),
    SamplingParams(temperature=0.9, seed=5, top_k=20, presence_penalty=0.5),
)


@pytest.mark.parametrize("at_once", [False, True])
def test_sessions_are_drafted_together_as_each_alone_in_one_pass(folder: Path, at_once: bool):
    drafters = [ModelDrafter(model) for model in (load_tiny(folder), PagedModel(load_tiny(folder), max_sessions=5))]
    engine = drafters[1].model.engine  # type: ignore[attr-defined]
    drafters[1].model.draws_all_rows = at_once  # type: ignore[misc]
    sources: list[list[Any]] = [[drafter.open(offer(sampling)) for sampling in SAMPLINGS] for drafter in drafters]
    alone, together = sources
    chance = random.Random(6)
    passes = 0
    run = engine.run

    def counted(sequences: Sequence[SequenceRows]) -> list[torch.Tensor]:
        seen.append(len(sequences))
        return run(sequences)

    engine.run = counted
    for turn in range(4):
        paths: list[list[tuple[int, ...]]] = [[()] for _ in SAMPLINGS]
        for depth in range(4):
            choices = [chance.randrange(1, 4) for _ in SAMPLINGS]
            seen: list[int] = []
            asked = [
                Expansion(source, places, zero_width=0, choices=count)
                for source, places, count in zip(together, paths, choices, strict=True)
            ]
            answers: list[Any] = drafters[1].expand_together(asked)
            assert seen[-1] == len(SAMPLINGS)
            if depth:
                assert seen == [len(SAMPLINGS)]
                passes += 1
            for number, answer in enumerate(answers):
                expected = alone[number].expand(paths[number], zero_width=0, choices=choices[number])
                assert tokens_of(answer) == tokens_of(expected)
                grown = [
                    (*path, choice.token)
                    for path, row in zip(paths[number], answer, strict=True)
                    for choice in row
                    if choice.token is not None and not choice.ends
                ]
                paths[number] = grown[:5] or paths[number]
                if not grown:
                    return
        for number, place in enumerate(paths):
            text, keep = b" and" if (turn + number) % 2 else None, len(alone[number].text)
            for source in (alone[number], together[number]):
                source.move(place[0], keep, text)
    assert passes == 12
    for source in together:
        source.close()
    assert engine.pool.free_pages == engine.pool.pages - 1


def test_what_fails_in_one_session_costs_the_others_nothing(tiny_llama: Path):
    """One that has no memory left, one whose source is broken, one at the end of its context."""
    model = PagedModel(load_tiny(tiny_llama), max_sessions=5, kv_bytes=1 << 18)
    drafter = ModelDrafter(model)
    sources: list[Any] = [drafter.open(offer(SamplingParams(temperature=0.9, seed=seed))) for seed in range(5)]
    plain = ModelDrafter(load_tiny(tiny_llama)).open(offer(SamplingParams(temperature=0.9, seed=0)))
    long = b"the cat and " * 400
    sources[1].move((), 4, long[: 8 * model.context_length])
    sources[2].continuation = "not callable"
    sources[3].move((), 4, long[:60])
    path: tuple[int, ...] = ()
    for _ in range(3):
        asked = [Expansion(source, [path if source is sources[0] else ()], 0, 2) for source in sources]
        answers: list[Any] = drafter.expand_together(asked)
        assert tokens_of(answers[0]) == tokens_of(plain.expand([path], zero_width=0, choices=2))
        assert isinstance(answers[2], TypeError) and not isinstance(answers[3], Exception)
        path = (*path, answers[0][0][0].token)
    pages = model.engine.pool.allocate(model.engine.pool.free_pages)
    sources[3].move((), 4, long[:600])
    failed, found = drafter.expand_together([Expansion(sources[3], [()], 0, 1), Expansion(sources[0], [path], 0, 2)])
    assert isinstance(failed, LimitExceededError)
    assert tokens_of(found) == tokens_of(plain.expand([path], zero_width=0, choices=2))
    model.engine.pool.free(pages)
    for source in (*sources[:2], *sources[3:]):
        source.close()


def test_more_branches_than_a_step_has_rows(folder: Path):
    plain, model = load_tiny(folder), paged(folder)
    caches: list[Any] = [plain.new_cache(), model.new_cache()]
    models: list[Any] = [plain, model]
    tokens = [7, 8, 9, *range(10, 155)]
    visible = torch.eye(len(tokens), dtype=torch.bool)
    depths = torch.zeros(len(tokens), dtype=torch.long)
    rows = []
    for one, cache in zip(models, caches, strict=True):
        one.prefill(list(range(5, 60)), cache)
        first = one.forward([3], cache)
        rows.append(
            torch.cat((first, one.forward_tree(tokens, cache, base=cache.length, visible=visible, depths=depths)))
        )
    close(rows[1], rows[0])
    with pytest.raises(ValueError, match="same step"):
        model.forward_tree(
            [1, 2],
            model.new_cache(),
            base=0,
            visible=torch.ones(2, 2).tril().bool(),
            depths=torch.tensor([0, 1]),
        )


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
