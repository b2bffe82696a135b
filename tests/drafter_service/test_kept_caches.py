"""Caches of texts that ended: what goes on from one is drafted the same, and what they share is not run anew."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from drafter_service.draft_source import DraftSource
from drafter_service.kept_caches import LEAST_TOKENS, KeptCaches
from drafter_service.linear_draft import LinearDraft
from drafter_service.model_draft_source import ModelDraftSource
from drafter_service.model_drafter import ModelDrafter
from language_models.causal_lm import CausalLM
from language_models.kv_cache import KVCache
from speculation.protocol.messages import ChatMessage, Prompt, SessionOffer, SpeculationPlan
from speculation.sampling.params import Rule, SamplingParams
from tests.support.tiny_models import load_tiny

PROMPT = "The heron waits at the edge of the pond and looks at the cat. The dog sat on the mat, and the cat"
LOTS = 1 << 30


class Counting:
    """A model that notes how many tokens it runs."""

    def __init__(self, model: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tokens = 0
        for name in ("prefill", "forward", "forward_branches"):
            monkeypatch.setattr(model, name, functools.partial(self._run, getattr(model, name)))

    def _run(self, run: Callable[..., Any], tokens: Sequence[int], *how: Any) -> Any:
        self.tokens += len(tokens)
        return run(tokens, *how)

    def since(self) -> int:
        """Since this was last asked."""
        counted, self.tokens = self.tokens, 0
        return counted


def offer(prompt: Prompt | str = PROMPT, committed: bytes = b"", rule: Rule = Rule.RACE, **more: str) -> SessionOffer:
    return SessionOffer(
        session="s",
        prompt=prompt if isinstance(prompt, Prompt) else Prompt(prompt),
        sampling=SamplingParams(temperature=0.8, seed=3),
        rule=rule,
        committed=committed,
        zero_width=0,
        plan=SpeculationPlan(),
        **more,  # type: ignore[arg-type]
    )


def drafted(source: DraftSource, count: int = 12) -> list[tuple[bytes, float]]:
    """Texts and probabilities, which differ a little with the shape of a pass."""
    draft = LinearDraft(source)
    tokens = [draft.next_token() for _ in range(count)]
    return [(token.text, round(token.confidence, 3)) for token in tokens]


@pytest.mark.parametrize("family", ["tiny_llama", "tiny_qwen2", "tiny_gemma"])
def test_a_text_that_is_offered_again_goes_on_from_its_own(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, family: str
):
    model = load_tiny(request.getfixturevalue(family))
    count = Counting(model, monkeypatch)
    drafter, plain = ModelDrafter(model, prefix_bytes=LOTS), ModelDrafter(model)
    first = drafter.open(offer())
    assert isinstance(first, ModelDraftSource)
    text = b"".join(word for word, _ in drafted(first))
    whole = count.since()
    first.close()
    assert drafter.kept.nbytes > 0
    for committed in (text[:4], text, b" something else entirely", b""):
        again = drafter.open(offer(committed=committed))
        assert drafter.kept.nbytes == 0, "it has one owner"
        known = drafted(again)
        ran = count.since()
        assert known == drafted(plain.open(offer(committed=committed)))
        assert ran < count.since() - LEAST_TOKENS and ran < whole
        again.close()


def test_a_next_turn_begins_with_the_one_before(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch):
    model = load_tiny(tiny_llama)
    count = Counting(model, monkeypatch)
    drafter, plain = ModelDrafter(model, prefix_bytes=LOTS), ModelDrafter(model)
    asked = (ChatMessage("system", "The heron waits at the pond."), ChatMessage("user", "And the cat? It sat."))
    source = drafter.open(offer(Prompt(messages=asked)))
    drafted(source, 2)
    source.close()
    count.since()
    turns = Prompt(messages=(*asked, ChatMessage("assistant", "It sat."), ChatMessage("user", "And the dog?")))
    known, ran = drafted(drafter.open(offer(turns))), count.since()
    assert known == drafted(plain.open(offer(turns))) and ran < count.since() - LEAST_TOKENS


@pytest.mark.parametrize("rule", [Rule.REJECTION, Rule.STRING_REJECTION])
def test_under_rules_with_proposals_too(tiny_llama: Path, rule: Rule):
    model = load_tiny(tiny_llama)
    drafter, plain = ModelDrafter(model, prefix_bytes=LOTS), ModelDrafter(model)
    vocab = model.tokenizer.vocab
    asked = offer(rule=rule, vocab_hash=vocab.content_hash)
    source = drafter.open(asked)
    text = b"".join(word for word, _ in drafted(source, 3))
    source.close()
    assert drafter.kept.nbytes
    again = offer(committed=text, rule=rule, vocab_hash=vocab.content_hash)
    assert drafted(drafter.open(again), 4) == drafted(plain.open(again), 4)


def held_by(model: CausalLM, tokens: Sequence[int]) -> KVCache:
    cache = model.new_cache()
    model.prefill(tokens, cache)
    return cache


def test_memory_has_its_bound_and_the_oldest_go_first(tiny_llama: Path):
    model = load_tiny(tiny_llama)
    each = held_by(model, range(40)).without_last(0).nbytes
    kept = KeptCaches(model, 2 * each)
    texts = [[start + place for place in range(40)] for start in (10, 60, 110)]
    for ids in texts:
        kept.put(ids, held_by(model, ids))
        assert kept.nbytes <= 2 * each
    assert kept.take(texts[0]) is None
    found = kept.take([*texts[2][:30], 5])
    assert found is not None and found.length == 30
    assert kept.take(texts[2]) is None, "it has one owner"
    none = KeptCaches(model, 0)
    none.put(texts[0], held_by(model, texts[0]))
    assert none.nbytes == 0 and none.take(texts[0]) is None


def test_who_shares_a_smaller_part_leaves_the_rest_to_its_own(tiny_llama: Path):
    model = load_tiny(tiny_llama)
    kept = KeptCaches(model, LOTS)
    system, first, second = list(range(20)), list(range(30, 130)), list(range(140, 180))
    kept.put([*system, *first], held_by(model, [*system, *first]))
    copied = kept.take([*system, *second])
    assert isinstance(copied, KVCache) and copied.length == len(system)
    expected = model.forward([*system, *second], model.new_cache())[len(system) :]
    assert torch.allclose(model.forward(second, copied), expected, atol=1e-4)
    own = kept.take([*system, *first, 7])
    assert isinstance(own, KVCache) and own.length == len(system) + len(first), "it was copied, not written into"
    assert torch.allclose(
        model.forward([7], own), model.forward([*system, *first, 7], model.new_cache())[-1:], atol=1e-4
    )


def test_of_equals_the_one_that_loses_least_is_taken(tiny_llama: Path):
    model = load_tiny(tiny_llama)
    kept, ids = KeptCaches(model, LOTS), list(range(100))
    for length in (60, 40, 80):
        kept.put(ids[:length], held_by(model, ids[:length]))
    found = kept.take([*ids[:40], 150])
    assert isinstance(found, KVCache) and found.length == 40
    left = [kept.take([*ids[:70], 150]), kept.take([*ids[:70], 150])]
    assert [cache.length for cache in left if cache is not None] == [70, 60]


def test_a_text_that_is_too_long_for_it_costs_no_other_its_place(tiny_llama: Path):
    model = load_tiny(tiny_llama)
    ids = list(range(60))
    size = held_by(model, ids).without_last(0).nbytes
    assert size < held_by(model, ids).nbytes, "buffers are larger than what they hold"
    kept = KeptCaches(model, 2 * size)
    kept.put(ids, held_by(model, ids))
    long = [place % 150 for place in range(200)]
    kept.put(long, held_by(model, long))
    assert kept.nbytes == size
    found = kept.take(ids)
    assert found is not None and found.length == len(ids)


def test_what_is_not_sound_is_not_kept(tiny_llama: Path):
    model = load_tiny(tiny_llama)
    kept, ids = KeptCaches(model, LOTS), list(range(10, 50))
    torn = held_by(model, ids)
    torn.cache.layers[0].rollback(1)  # as a pass leaves it that failed behind a layer
    kept.put(ids, torn)
    kept.put(ids[: LEAST_TOKENS - 1], held_by(model, ids[: LEAST_TOKENS - 1]))
    assert kept.nbytes == 0 and kept.take(ids) is None
    kept.put(ids[:20], held_by(model, ids))  # more than is known of
    found = kept.take(ids)
    assert found is not None and found.length == 20


def test_a_window_that_cannot_go_back_so_far_is_left(tiny_gemma: Path):
    model = load_tiny(tiny_gemma)
    kept, ids = KeptCaches(model, LOTS), [10 + place % 90 for place in range(300)]
    cache = model.new_cache(slack=8)
    model.prefill(ids, cache)
    assert 8 <= cache.max_rollback < 200
    kept.put(ids, cache)
    assert kept.take([*ids[:100], 5]) is None and kept.nbytes
    found = kept.take([*ids[:-4], 5])
    assert found is not None and found.length == len(ids) - 4
