"""The GPU engine on a card: the kernel against its reference, equal bits in any company, equal texts for any drafts."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
import torch

from dragoman.client import Client
from engine.attention_items import ROOT
from engine.paged_engine import PagedEngine
from engine.paged_model import PagedModel
from engine.reference_attention import reference_attention
from engine.step_tables import PAGE, SequenceRows, StepTables
from language_models.causal_lm import CausalLM
from language_models.continuation import TreeRows
from speculation.drafts.candidates import CandidateTree
from speculation.protocol.messages import Prompt
from speculation.sampling.params import SamplingParams
from tests.support.paged_faults import check_that_nan_stays_in_its_session
from tests.support.service_drivers import serving
from verifier_service.engine_choice import engine_for

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

PROMPTS = ("The heron waits", "def add(a, b):", "A dog 🐶 sat, and the cat", "猫が座った。")
SAMPLINGS = (
    SamplingParams(),
    SamplingParams(temperature=0.8, seed=3),
    SamplingParams(temperature=1.1, seed=8, top_p=0.9),
)


def random_tree(chance: random.Random, size: int) -> list[int]:
    return [ROOT if row == 0 else chance.randrange(-1, row) for row in range(size)]


@pytest.mark.parametrize(
    ("heads", "kv_heads", "size", "window", "softcap"),
    [(8, 2, 64, 1 << 30, 0.0), (12, 2, 128, 100, 0.0), (4, 1, 256, 1 << 30, 30.0), (9, 3, 64, 7, 5.0)],
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_kernel_and_reference_agree(heads, kv_heads, size, window, softcap, dtype):
    from engine.tree_attention import tree_attention

    chance, generator = random.Random(heads), torch.Generator("cuda").manual_seed(1)
    pages = 1 + 3 * 64
    keys, values = (
        torch.randn((pages * PAGE, kv_heads, size), generator=generator, device="cuda", dtype=dtype) for _ in range(2)
    )
    shuffled = list(range(1, pages))
    chance.shuffle(shuffled)
    held = [shuffled[64 * slot : 64 * slot + 64] for slot in range(3)]
    page_table = torch.tensor(held, device="cuda")
    tables = StepTables(rows=64, page_table=page_table, group=heads // kv_heads)
    for bases in ((0, 63, 64), (200, 511, 700), (1, 255, 256)):
        rows = [
            SequenceRows(slot, base, [1] * 20, random_tree(chance, 20), held[slot]) for slot, base in enumerate(bases)
        ]
        tables.load(rows)
        q = torch.randn((64, heads, size), generator=generator, device="cuda", dtype=dtype)
        settings = {"scale": size**-0.5, "softcap": softcap, "window": window}
        found = tree_attention(q, keys, values, tables, **settings).float()
        expected = reference_attention(q.double(), keys.double(), values.double(), tables, **settings).float()
        assert float((found - expected).norm() / expected.norm()) < (4e-3 if dtype is torch.float16 else 2e-2)
        assert torch.equal(found[60:], torch.zeros_like(found[60:]))


def test_the_order_of_work_changes_no_bit():
    """Split by split or group by group, in narrow tiles or in wide ones, alone or beside others."""
    from engine.tree_attention import tree_attention

    heads, kv_heads, size = 8, 2, 128
    chance, generator = random.Random(1), torch.Generator("cuda").manual_seed(2)
    keys, values = (
        torch.randn((1 + 200, PAGE, kv_heads, size), generator=generator, device="cuda", dtype=torch.bfloat16)
        for _ in range(2)
    )
    keys, values = keys.view(-1, kv_heads, size), values.view(-1, kv_heads, size)
    shuffled = list(range(1, 201))
    chance.shuffle(shuffled)
    held = [shuffled[:100], shuffled[100:]]
    settings = {"scale": size**-0.5, "softcap": 0.0, "window": 1 << 30}
    q = torch.randn((16, heads, size), generator=generator, device="cuda", dtype=torch.bfloat16)
    for base in (0, 63, 64, 127, 200, 511, 512, 640, 1100, 1500):
        tree = SequenceRows(0, base, [1] * 12, random_tree(chance, 12), held[0])
        found = []
        for many in (1, 10**6):  # KV heads, by which a step has many splits or few
            tables = StepTables(rows=16, page_table=torch.tensor(held, device="cuda"), group=4, kv_heads=many)
            tables.load([tree])
            assert tables.kind.queries == 32
            found.append(tree_attention(q, keys, values, tables, **settings)[:12])
            tables.load([SequenceRows(1, 1300, [1] * 4, (ROOT, 0, 1, 2), held[1]), tree])
            found.append(tree_attention(q.roll(4, 0), keys, values, tables, **settings)[4:])
        for row in range(12):
            path = [row]
            while tree.parents[path[0]] != ROOT:
                path.insert(0, tree.parents[path[0]])
            depth = len(path) - 1  # the row's place alone, after its ancestors
            tables.load([SequenceRows(0, base, [1], (ROOT,), held[0], held=row, above=(path[:-1],))])
            assert tables.kind.queries == 16 and int(tables.row_position[0]) == base + depth
            alone = tree_attention(q[[row] * 16], keys, values, tables, **settings)[0]
            assert all(torch.equal(each[row], alone) for each in found), (base, row)


@pytest.fixture(scope="module", params=["tiny_llama", "tiny_qwen2", "tiny_gemma"])
def engine(request) -> PagedEngine:
    folder: Path = request.getfixturevalue(request.param)
    with pytest.MonkeyPatch.context() as patched:  # so that prompts within these models' contexts have several chunks
        patched.setattr("engine.paged_engine.PREFILL_ROWS", 128)
        made = engine_for(CausalLM.load(str(folder), device="cuda", dtype="bfloat16"), kv_bytes=1 << 28)
    assert isinstance(made, PagedEngine)
    return made


def test_graphs_lend_each_other_their_memory(engine: PagedEngine):
    """PyTorch lends what was given back only on the stream that it was given back on, in a pool of graphs as well."""
    assert sum(shape.prepare() for shape in (*engine.step_shapes, engine.prefill_shape)) > 2
    pool = engine.memory.graph_pool
    streams = [part["stream"] for part in torch.cuda.memory_snapshot() if tuple(part["segment_pool_id"]) == pool]
    assert streams and len(set(streams)) == 1


def test_bits_depend_on_nothing_but_the_text(engine: PagedEngine, monkeypatch: pytest.MonkeyPatch):
    """A chain, its tokens one by one, a tree that was kept and compacted, other places of pages, neighbours' rows."""
    monkeypatch.setattr(engine, "shares_prefixes", False)
    chance = random.Random(5)
    prompt = [chance.randrange(5, 300) for _ in range(150)]
    draft = [chance.randrange(5, 300) for _ in range(12)]
    whole = engine.pool.free_pages
    slot = engine.open(prompt)
    chain = slot.step(prompt[-1], CandidateTree.chain(draft))
    slot.close()
    others = [engine.open([chance.randrange(5, 300) for _ in range(70)]) for _ in range(3)]  # other pages from now on
    slot = engine.open(prompt)
    ones = []
    for index, token in enumerate((prompt[-1], *draft)):
        ones.append(slot.step(token, CandidateTree())[0])
        slot.keep([0])
        others[index % 3].step(9, CandidateTree.chain([4, 5, 6]))
    assert torch.equal(chain, torch.stack(ones))
    slot.close()
    slot = engine.open(prompt)
    kept, last, place = [], prompt[-1], 0
    while place < len(draft):
        ahead = draft[place : place + 3]
        nodes, parents, taken, before = [], [], [0], ROOT
        for token in ahead:
            nodes += [7, token, 8]
            parents += [before, before, before]
            before = len(nodes) - 2
            taken.append(1 + before)
        logits = slot.step(last, CandidateTree(tuple(nodes), tuple(parents)))
        kept.append(logits[taken[:-1]])
        slot.keep(taken[:-1])
        last, place = ahead[-1], place + len(ahead)
    assert torch.equal(chain[:-1], torch.cat(kept))
    for open_slot in (slot, *others):
        open_slot.close()
    assert engine.pool.free_pages == whole


def test_what_is_no_number_stays_in_its_session(engine: PagedEngine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine, "shares_prefixes", False)
    check_that_nan_stays_in_its_session(engine)


@pytest.mark.parametrize("length", [40, 127, 150, 300, 490])
def test_what_another_prompt_left_has_the_bits_of_what_is_run_anew(
    engine: PagedEngine, monkeypatch: pytest.MonkeyPatch, length: int
):
    """Of steps and of prefill passes, also where sharing ends within one."""
    chance = random.Random(length)
    prompt = [chance.randrange(5, 300) for _ in range(length)]
    draft = CandidateTree.chain([chance.randrange(5, 300) for _ in range(9)])
    with monkeypatch.context() as patched:
        patched.setattr(engine, "shares_prefixes", False)
        slot = engine.open(prompt)
        alone = slot.step(prompt[-1], draft)
        slot.close()
    whole = engine.pool.free_pages
    other = engine.open([*prompt[: len(prompt) * 2 // 3], *(7 for _ in range(len(prompt) // 3))])
    for shared in (len(prompt) // 2 // PAGE * PAGE, (len(prompt) - 1) // PAGE * PAGE):  # of the other one; all
        before = engine.shared_positions
        slot = engine.open(prompt)
        assert torch.equal(slot.step(prompt[-1], draft), alone)
        assert engine.shared_positions - before >= min(shared, len(prompt) // 3 // PAGE * PAGE)
        slot.close()
    other.close()
    assert engine.pool.free_pages == whole


@pytest.mark.parametrize("name", ["tiny_llama", "tiny_gemma"])
def test_a_drafters_tree_has_the_bits_of_its_chains(request, name: str):
    """Branches that earlier steps wrote stand above those of a step; kept ones go on as the text."""
    model = PagedModel(
        CausalLM.load(str(request.getfixturevalue(name)), device="cuda", dtype="bfloat16"), max_sessions=4
    )
    chance = random.Random(3)
    prompt, chain, other = ([chance.randrange(5, 300) for _ in range(size)] for size in (75, 9, 9))
    cache = model.new_cache()
    model.prefill(prompt, cache)
    expected = torch.cat([model.forward([token], cache) for token in chain])
    cache.rollback(len(chain))
    rows = []
    for depth in range(5):  # two branches grow side by side; rows 2i and 2i + 1 are of depth i
        above = [range(0, 2 * depth, 2), range(1, 2 * depth, 2)]
        tree = TreeRows(len(prompt), above, depths=[row // 2 for row in range(2 * depth + 2)])
        rows.append(model.forward_branches([chain[depth], other[depth]], cache, tree)[0])
    assert torch.equal(torch.stack(rows), expected[:5])
    cache.keep_rows(len(prompt), [0, 2, 4, 6, 8])
    assert torch.equal(torch.cat([model.forward([token], cache) for token in chain[5:]]), expected[5:])
    cache.close()
    assert model.engine.pool.free_pages == model.engine.pool.pages - 1


async def test_texts_are_the_same_with_any_drafts_and_any_company(engine: PagedEngine):
    whole = engine.pool.free_pages
    wanted = [(prompt, sampling) for prompt in PROMPTS for sampling in SAMPLINGS]
    async with serving(engine, lookup=False) as (_, address), Client(str(address)) as client:
        alone = [await client.complete(Prompt(text=p), max_tokens=60, sampling=s) for p, s in wanted]
    async with serving(engine) as (_, address), Client(str(address)) as client:
        for draft in ("", *(done.text[:50] for done in alone[:4])):
            asked = [client.complete(Prompt(text=p), max_tokens=60, sampling=s, prediction=draft) for p, s in wanted]
            together = await asyncio.gather(*asked)
            assert [done.data for done in together] == [done.data for done in alone]
    assert engine.pool.free_pages == whole


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_card_that_is_not_the_current_one_has_the_same_bits(tiny_llama: Path, dragoman_home: Path):
    """The engine's threads begin with the first card as theirs."""
    rows = []
    for device in ("cuda:0", "cuda:1"):
        model = CausalLM.load(str(tiny_llama), dtype="bfloat16", device=device, threads=1)
        engine = PagedEngine(model, kv_bytes=1 << 24)
        slot = engine.open([5, 6, 7, 8])
        rows.append(slot.step(9, CandidateTree.chain([10, 11])).cpu())
        slot.close()
        engine.close()
    assert torch.equal(rows[0], rows[1])
