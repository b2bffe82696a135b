"""The engine over paged keys and values, on a CPU with the reference of its kernel: same logits as plain transformers,
whatever tree a row stands in, wherever its pages lie, and no page is lost."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
import torch

from dragoman.client import Client
from engine.attention_items import NO_ITEM, ROOT, SPLIT_ITEM, TAIL_ITEM
from engine.engine_check import TOLERANCE
from engine.kv_pages import PagePool
from engine.paged_attention import AttentionProbe
from engine.paged_engine import ROWS, PagedEngine, PagedSlot
from engine.reference_attention import reference_attention
from engine.step_kinds import StepKind
from engine.step_tables import PAGE, SequenceRows, StepTables
from language_models.causal_lm import CausalLM
from speculation.drafts.candidates import CandidateTree
from speculation.errors import InputError, LimitExceededError, ModelError, UnsupportedModelError
from speculation.protocol.messages import Prompt
from speculation.sampling.params import SamplingParams
from tests.support.paged_faults import check_that_nan_stays_in_its_session
from tests.support.service_drivers import serving
from tests.support.tiny_models import load_tiny
from verifier_service.engine_choice import EngineKind, engine_for
from verifier_service.transformers_engine import TransformersEngine

KV_BYTES = 4 << 20
PROMPT = [5, 9, 60, 61, 7, 80, 81, 82, 9, 5, 33, 34, 35, 36, 37, 38, 39, 40, 41]
#: A chain 11, 12, 13 with branches beside it.
TREE = CandidateTree((11, 20, 12, 21, 13), (-1, -1, 0, 0, 2))
CHAIN_ROWS = [0, 1, 3, 5]
SAMPLINGS = [SamplingParams(), SamplingParams(temperature=0.8, seed=3), SamplingParams(temperature=1.2, seed=4)]


@pytest.fixture(params=["tiny_llama", "tiny_qwen2", "tiny_gemma"])
def folder(request) -> Path:
    return request.getfixturevalue(request.param)


def logits_of(model: CausalLM, tokens: list[int]) -> torch.Tensor:
    return model.forward(tokens, model.new_cache())


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_tree_has_the_logits_of_its_chains(folder: Path):
    plain = load_tiny(folder)
    engine = PagedEngine(load_tiny(folder), kv_bytes=KV_BYTES)
    slot = engine.open(PROMPT)
    logits = slot.step(PROMPT[-1], TREE)
    expected = logits_of(plain, [*PROMPT, 11, 12, 13])
    close(logits[CHAIN_ROWS], expected[len(PROMPT) - 1 :])
    close(logits[4], logits_of(plain, [*PROMPT, 11, 21])[-1])
    close(logits[2], logits_of(plain, [*PROMPT, 20])[-1])


def test_what_is_kept_of_a_tree_goes_on_as_if_it_had_been_a_chain(folder: Path):
    plain = load_tiny(folder)
    engine = PagedEngine(load_tiny(folder), kv_bytes=KV_BYTES)
    slot = engine.open(PROMPT)
    tokens = list(PROMPT)
    for _ in range(12):  # beyond a page, and beyond the window of the sliding layers
        slot.step(tokens[-1], TREE)
        slot.keep(CHAIN_ROWS[:3])
        tokens += [11, 12, 13]
        logits = slot.step(tokens[-1], CandidateTree((50,), (-1,)))
        slot.keep([0])
        tokens += [50]
    close(logits[0], logits_of(plain, tokens)[-2])


def test_long_prompts_are_cut_at_fixed_places(tiny_gemma: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("engine.paged_engine.PREFILL_ROWS", 96)
    plain = load_tiny(tiny_gemma)
    engine = PagedEngine(load_tiny(tiny_gemma), kv_bytes=KV_BYTES, rows=16)
    prompt = [random.Random(3).randrange(5, 200) for _ in range(270)]
    logits = engine.open(prompt).step(prompt[-1], CandidateTree())
    close(logits, logits_of(plain, prompt)[-1:])


def test_pages_come_back_whatever_happens(tiny_llama: Path):
    engine = PagedEngine(load_tiny(tiny_llama), kv_bytes=KV_BYTES)
    whole = engine.pool.free_pages
    chance = random.Random(1)
    slots: list[PagedSlot] = []
    for _ in range(150):
        if slots and chance.random() < 0.4:
            slots.pop(chance.randrange(len(slots))).close()
        elif slots and chance.random() < 0.6:
            slot = chance.choice(slots)
            slot.step(7, TREE)
            slot.keep(CHAIN_ROWS[: chance.randrange(1, 5)])
        else:
            slots.append(engine.open(PROMPT[: chance.randrange(1, len(PROMPT))]))
    assert engine.kv_cache_bytes == (whole - engine.pool.free_pages) * engine.page_bytes > 0
    for slot in slots:
        slot.close()
        slot.close()
    assert engine.pool.free_pages == whole and engine.kv_cache_bytes == 0


def test_a_full_cache_refuses_and_leaves_the_others_alone(tiny_llama: Path):
    engine = PagedEngine(load_tiny(tiny_llama), kv_bytes=1 << 16, rows=16)
    first = engine.open(PROMPT)
    before = first.step(PROMPT[-1], CandidateTree())
    free = engine.pool.free_pages
    with pytest.raises(LimitExceededError, match="no room"):
        engine.open([7] * 400)
    assert engine.pool.free_pages == free
    assert torch.equal(first.step(PROMPT[-1], CandidateTree()), before)


def test_a_slot_that_begins_holds_all_that_it_may_grow_to(tiny_llama: Path):
    engine = PagedEngine(load_tiny(tiny_llama), kv_bytes=1 << 17, rows=16)
    whole, most = engine.pool.free_pages, engine.context_length
    assert most == whole * PAGE - 16 and engine.has_room(most) and not engine.has_room(most + 1)
    slot = engine.begin(PROMPT, most)
    assert engine.pool.free_pages == 0 and not engine.has_room(1)
    while slot.prefill_left:
        engine.prefill([slot])
    held = engine.kv_cache_bytes
    for _ in range(10):
        slot.step(7, TREE)
        slot.keep(CHAIN_ROWS[:3])
    assert engine.kv_cache_bytes == held > 0
    with pytest.raises(LimitExceededError, match="no room"):
        engine.begin(PROMPT, 1)
    slot.close()
    assert engine.pool.free_pages == whole and engine.has_room(most)


async def test_sessions_that_find_no_memory_wait_and_write_the_same(tiny_llama: Path):
    engine = PagedEngine(load_tiny(tiny_llama), kv_bytes=1 << 17, rows=16)
    whole, most = engine.pool.free_pages, engine.context_length
    tokens = most // 3
    async with serving(engine) as (_, address), Client(str(address)) as client:
        alone = await client.complete("The heron", max_tokens=tokens)
        together = await asyncio.gather(*(client.complete("The heron", max_tokens=tokens) for _ in range(6)))
        assert {done.data for done in together} == {alone.data}
        with pytest.raises(InputError, match="is longer than the model's context length"):
            await client.complete("The heron waits. " * most)
    assert engine.pool.free_pages == whole


def test_an_engine_that_computes_something_else_is_refused(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch):
    real = reference_attention

    def at_another_scale(*args, **kwargs):
        return real(*args, **{**kwargs, "scale": 2 * kwargs["scale"]})

    monkeypatch.setattr("engine.paged_attention.reference_attention", at_another_scale)
    with pytest.raises(ModelError, match="away from those of transformers"):
        PagedEngine(load_tiny(tiny_llama), kv_bytes=KV_BYTES)


def test_an_engine_whose_rows_see_their_neighbours_is_refused(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch):
    real = reference_attention

    def leaky(*args, **kwargs):
        out = real(*args, **kwargs)
        return out + 0.05 * out.mean(0, keepdim=True)

    monkeypatch.setattr("engine.paged_attention.reference_attention", leaky)
    monkeypatch.setitem(TOLERANCE, "float32", 10.0)
    with pytest.raises(ModelError, match="other logits than in a row"):
        PagedEngine(load_tiny(tiny_llama), kv_bytes=KV_BYTES)


def test_a_model_that_attends_in_a_way_of_its_own_is_left_as_it_was(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch):
    model = load_tiny(tiny_llama)
    before = logits_of(model, PROMPT)
    monkeypatch.setattr(
        AttentionProbe, "__call__", lambda self, module, query, *rest, **more: (query.transpose(1, 2), None)
    )
    with pytest.raises(UnsupportedModelError, match="by name"):
        PagedEngine(model, kv_bytes=KV_BYTES)
    assert torch.equal(logits_of(model, PROMPT), before)


@pytest.mark.parametrize("exact", [True, False])
async def test_texts_are_those_of_plain_transformers(tiny_llama: Path, exact: bool):
    """Sessions at once, with a draft that is mostly right, one that is wrong, and none."""
    prompt = Prompt(text="The heron waits")
    async with serving(TransformersEngine(load_tiny(tiny_llama))) as (_, address), Client(str(address)) as client:
        plain = [await client.complete(prompt, max_tokens=50, sampling=s) for s in SAMPLINGS]
    engine = PagedEngine(load_tiny(tiny_llama), kv_bytes=KV_BYTES, exact=exact)
    whole = engine.pool.free_pages
    async with serving(engine) as (_, address), Client(str(address)) as client:
        for draft in ("", plain[0].text[:40], "nothing like it"):
            asked = [client.complete(prompt, max_tokens=50, sampling=s, prediction=draft) for s in SAMPLINGS]
            assert [done.data for done in await asyncio.gather(*asked)] == [done.data for done in plain]
    assert engine.pool.free_pages == whole


def test_what_is_no_number_stays_in_its_session(folder: Path):
    check_that_nan_stays_in_its_session(PagedEngine(load_tiny(folder), kv_bytes=KV_BYTES, prefix_caching=False))


def test_without_exactness_a_step_has_as_few_rows_as_it_needs(tiny_llama: Path):
    engine = PagedEngine(load_tiny(tiny_llama), kv_bytes=KV_BYTES, exact=False)
    assert [shape.tables.rows for shape in engine.step_shapes] == [16, 32, ROWS]
    slot = engine.open([5, 6, 7])
    for candidates, rows in ((15, 16), (16, 32), (40, ROWS)):
        for shape in engine.step_shapes:
            shape.tables.load([])
        slot.step(7, CandidateTree.chain([8] * candidates))
        used = [shape.tables.rows for shape in engine.step_shapes if int(shape.tables.row_slot[0]) >= 0]
        assert used == [rows]
    slot.close()
    exact = PagedEngine(load_tiny(tiny_llama), kv_bytes=KV_BYTES)
    assert [shape.tables.rows for shape in exact.step_shapes] == [ROWS]


@pytest.mark.parametrize(("dtype", "kind"), [("float32", EngineKind.AUTO), ("bfloat16", EngineKind.TRANSFORMERS)])
def test_a_cpu_keeps_the_engine_of_transformers(tiny_llama: Path, dtype: str, kind: EngineKind):
    model = CausalLM.load(str(tiny_llama), device="cpu", dtype=dtype, threads=1)
    assert isinstance(engine_for(model, kind), TransformersEngine)
    with pytest.raises(InputError, match="needs a GPU"):
        engine_for(model, EngineKind.PAGED)


def test_pool_gives_every_page_once():
    pool = PagePool(6)
    first, second = pool.allocate(2), pool.allocate(3)
    assert sorted(first + second) == [1, 2, 3, 4, 5]
    with pytest.raises(LimitExceededError):
        pool.allocate(1)
    pool.free(first)
    assert sorted(pool.allocate(2)) == sorted(first)


def test_tables_say_what_each_row_sees():
    tables = StepTables(rows=8, page_table=torch.zeros((2, 4), dtype=torch.int64), group=32)  # query heads
    pages = [3, 1]
    tables.load([SequenceRows(1, 15, (7, 8, 9), (ROOT, 0, 0), pages)])
    assert tables.tokens.tolist() == [7, 8, 9, 0, 0, 0, 0, 0]
    assert tables.write.tolist()[:4] == [3 * PAGE + 15, PAGE, PAGE + 1, 0]
    assert tables.row_position.tolist()[:3] == [15, 16, 16]
    assert tables.row_slot.tolist() == [1, 1, 1, -1, -1, -1, -1, -1]
    assert tables.ancestors[2, :2].tolist() == [3 * PAGE + 15, PAGE + 1]
    assert tables.by_path.tolist()[:3] == [2, 0, 1]
    # 32 query heads of a KV head leave room for one row.
    assert tables.items[:3, :6].tolist() == [[TAIL_ITEM, 0, row, 1, 1, 15] for row in range(3)]


def test_tables_refuse_what_does_not_fit():
    tables = StepTables(rows=4, page_table=torch.zeros((2, 8), dtype=torch.int64), group=1)
    with pytest.raises(ValueError, match="do not fit"):
        tables.load([SequenceRows(0, 0, (1,) * 5, (ROOT,) * 5, [1])])
    with pytest.raises(ValueError, match="longer than 64"):
        StepTables(rows=80, page_table=torch.zeros((1, 8), dtype=torch.int64), group=1).load(
            [SequenceRows(0, 0, (1,) * 65, tuple(range(-1, 64)), [1, 2, 3, 4, 5])]
        )


def test_work_is_of_few_sizes_and_reaches_every_block():
    tables = StepTables(rows=8, page_table=torch.zeros((2, 64), dtype=torch.int64), group=4)
    pages = list(range(1, 65))
    tables.load([SequenceRows(0, 700, (1, 2), (ROOT, 0), pages), SequenceRows(1, 63, (1, 2), (ROOT, 0), pages)])
    assert tables.kind == StepKind(splits=8, work=64, queries=16, grouped=False)
    found = [tuple(item[:6]) for item in tables.items[: tables.kind.work].tolist()]
    # Ten whole blocks before position 640 in five splits. The rows are chains: block 10; blocks 0 and 1.
    splits = [(SPLIT_ITEM, part, 0, 2, 0, 700) for part in range(5)]
    tails = [(TAIL_ITEM, 0, 0, 2, 0, 700), (TAIL_ITEM, 0, 2, 2, 1, 63), (TAIL_ITEM, 1, 2, 2, 1, 63)]
    assert found[:8] == splits + tails
    assert {item[0] for item in found[8:]} == {NO_ITEM}
    tables.load([SequenceRows(0, 700, (1,) * 5, (ROOT, 0, 0, 0, 0), pages)])
    assert tables.kind.queries == 32  # five rows of four heads do not fit 16
