"""Sessions whose drafts go through one pass: each as it is drafted alone, whatever becomes of the others."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from drafter_service.desk import Desk
from drafter_service.draft_source import Expansion
from drafter_service.model_draft_source import RowsRun, choices_after
from drafter_service.model_drafter import ModelDrafter
from engine.paged_model import PagedModel
from engine.step_tables import SequenceRows
from language_models.continuation import Continuation, TreeRows
from speculation.errors import LimitExceededError
from speculation.protocol.messages import SpeculationPlan
from speculation.sampling.params import SamplingParams
from speculation.sessions.drafter_session import DraftToken
from tests.support.paged_drafts import close, offer, paged
from tests.support.tiny_models import load_tiny


@pytest.fixture(params=["tiny_llama", "tiny_gemma"])
def folder(request) -> Path:
    return request.getfixturevalue(request.param)


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


@pytest.mark.parametrize("at_once", [False, True])
def test_draws_that_fail_cost_one_session_its_own(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool):
    model = paged(tiny_llama)
    model.draws_all_rows = at_once
    drafter = ModelDrafter(model)
    sources: list[Any] = [drafter.open(offer(sampling)) for sampling in SAMPLINGS[:3]]

    def no_memory(*_: Any) -> None:
        raise RuntimeError("out of memory")

    asked = [Expansion(source, [()], zero_width=0, choices=1) for source in sources]
    expected = drafter.expand_together(asked)
    with monkeypatch.context() as patched:
        patched.setattr(sources[1], "ranking" if at_once else "choices", no_memory)
        good, bad, other = drafter.expand_together(asked)
    assert [good, other] == [expected[0], expected[2]] and str(bad) == "out of memory"
    assert drafter.expand_together(asked) == expected


def test_logits_that_are_no_numbers_end_a_draft(tiny_llama: Path):
    model = paged(tiny_llama)
    model.draws_all_rows = True
    source: Any = ModelDrafter(model).open(offer(SamplingParams()))
    logits = torch.full((1, model.vocab_size), torch.nan)
    assert choices_after([RowsRun(source, [()], zero_width=0, logits=logits)], 2) == [[[DraftToken(b"", stops=True)]]]


def test_a_tree_at_the_end_of_a_context_joins_like_any(tiny_llama: Path):
    model = paged(tiny_llama)
    caches = [model.new_cache(), model.new_cache()]
    model.prefill([5] * (model.context_length - 1), caches[0])
    model.prefill([5] * 9, caches[1])
    tree = TreeRows(caches[0].length, above=[[], [], []], depths=[0, 0, 0])
    joined = model.forward_all([Continuation(caches[0], [7, 8, 9], tree), Continuation(caches[1], [7])])
    caches[0].rollback(3)
    close(joined[0], Continuation(caches[0], [7, 8, 9], tree).run(model))


def test_a_session_that_takes_its_time_has_a_turn_of_its_own(tiny_llama: Path):
    """One whose prompt is to be read, say; those that go on do not wait for it, nor it for them."""
    desk = Desk(ModelDrafter(paged(tiny_llama)))
    names = ["a", "b", "c", "d"]
    for name in names:
        desk.open(dataclasses.replace(offer(SamplingParams()), session=name, plan=SpeculationPlan(lookahead=20)))
    turns = []
    for _ in range(7):
        sessions = desk.next_turns(3)
        turns.append("".join(session.name for session in sessions))
        for session in sessions:
            session.take(session.prepare().alone())
    assert turns == ["a", "b", "c", "d", "abc", "dab", "cda"]
