"""The model drafter under the rejection rules: q is the model's own, whatever was drafted and corrected before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drafter_service.model_drafter import ModelDrafter
from drafter_service.proposing_source import ProposingSource
from language_models.causal_lm import CausalLM
from language_models.kv_cache import KVCache
from speculation.protocol.messages import Prompt, SessionOffer, SpeculationPlan
from speculation.protocol.proposal import propose
from speculation.sampling.noise import place_bits
from speculation.sampling.params import Rule, SamplingParams
from speculation.text.vocab_table import table_of
from speculation.verification.rejection import draft_stream
from speculation.verification.string_rejection import DEPTH, FirstToken, psi

PROMPT = Prompt(text="The heron")
RULES = [Rule.REJECTION, Rule.STRING_REJECTION]
SETTINGS = SamplingParams(3.0, top_p=0.98, presence_penalty=0.3, repetition_penalty=1.1, seed=3)


@pytest.fixture(scope="module")
def target(tiny_gemma: Path) -> CausalLM:
    return CausalLM.load(str(tiny_gemma), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def drafter(tiny_llama: Path, target: CausalLM) -> ModelDrafter:
    drafter = ModelDrafter(CausalLM.load(str(tiny_llama), dtype="float32", device="cpu"))
    vocab = target.tokenizer.vocab
    drafter.learn_vocabulary(vocab.content_hash, table_of(vocab))
    return drafter


def opened(
    drafter: ModelDrafter,
    target: CausalLM,
    rule: Rule,
    *,
    number: int = 1,
    top_k: int = 6,
    sampling: SamplingParams = SETTINGS,
) -> ProposingSource:
    plan, vocab = SpeculationPlan(top_k=top_k), target.tokenizer.vocab
    source = drafter.open(SessionOffer("s", PROMPT, sampling, rule, b"", 0, plan, number, vocab.content_hash))
    assert isinstance(source, ProposingSource)
    return source


def gap(a, b) -> float:
    return max(abs(a.get(token, 0.0) - b.get(token, 0.0)) for token in {*a, *b})


@settings(max_examples=15)
@given(data=st.data())
@pytest.mark.parametrize("rule", RULES)
def test_the_distribution_does_not_depend_on_what_came_before(
    drafter: ModelDrafter, target: CausalLM, rule: Rule, data: st.DataObject
):
    source = opened(drafter, target, rule)
    path: tuple[int, ...] = ()
    expanded = False  # as a session does, the source is asked once how a branch goes on
    for _ in range(data.draw(st.integers(1, 5))):
        if expanded and path:
            source.move(path, 0, None)
            path = ()
        [[token, *_]] = source.expand([path], zero_width=0, choices=3)
        expanded = True
        if token.text and data.draw(st.booleans()):
            path += (token.token,)
            expanded = False
        match data.draw(st.integers(0, 3)):
            case 0 if path:
                source.move(path[:1], 0, None)
                path = path[1:]
            case 1:
                text = source.text
                source.move((), max(0, len(text) - 2), data.draw(st.sampled_from([b" fish", "猫".encode(), b"a"])))
                path, expanded = (), False
    own = source.own_tokens(path)
    fresh = opened(drafter, target, rule)
    for earlier in source.context_ids[len(fresh.context_ids) :]:
        fresh.append(earlier)
    for each in (source, fresh):
        each.advance(own)
    assert gap(source.distribution(own), fresh.distribution(own)) < 1e-4
    assert source.base <= len(source.context_ids) + len(own)


def test_over_the_common_tokens_it_is_the_models_own_renormalised(drafter: ModelDrafter, target: CausalLM):
    source = opened(drafter, target, Rule.REJECTION, top_k=1000, sampling=SamplingParams(temperature=1.5))
    q = source.probabilities()
    ours, theirs = drafter.model.tokenizer.vocab, target.tokenizer.vocab
    expected: dict[int, float] = {}
    for token, share in enumerate(q.tolist()):
        data = ours.token_bytes[token]
        meant = theirs.id_of(data) if data else theirs.end_ids[0] if token in ours.end_ids else None
        if meant is not None:
            expected[meant] = expected.get(meant, 0.0) + share
    found = dict(source.distribution())
    total = sum(expected.values())
    assert total < 1 and len(found) > 300
    assert gap(found, {token: share / total for token, share in expected.items()}) < 1e-6
    assert sum(found.values()) == pytest.approx(1, abs=1e-9)


def test_strings_are_enumerated_as_the_definition_says_in_batches(drafter: ModelDrafter, target: CausalLM):
    """The batched enumeration against one that runs every path on a source of its own."""
    source = opened(drafter, target, Rule.STRING_REJECTION, top_k=4)

    def next_tokens(paths):
        rows = []
        for path in paths:
            alone = opened(drafter, target, Rule.STRING_REJECTION, top_k=4)
            alone.advance(path)
            logits = alone.logits_after(path)
            rows.append(alone.likeliest(logits.index_fill(0, alone.view.without_text, -torch.inf)))
        return rows

    vocab = drafter.model.tokenizer.vocab
    expected = psi(next_tokens, vocab, FirstToken(target.tokenizer.vocab), depth=DEPTH)
    found = source.distribution()
    assert gap(found, expected) < 1e-4 and len(found) > 1
    assert sum(found.values()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_every_draw_has_noise_of_its_own_and_is_sent_as_it_was_drawn(
    drafter: ModelDrafter, target: CausalLM, rule: Rule
):
    source = opened(drafter, target, rule, number=5)
    q = source.distribution()
    for attempt in range(4):
        [[token]] = source.expand([()], zero_width=0, choices=1)
        bits = place_bits(SETTINGS.seed, 0, 0, draft_stream(5, attempt))
        assert token.proposal == propose(q, bits)
        assert token.proposal is not None
        assert token.text == target.tokenizer.vocab.bytes_of(token.proposal.token)


def test_alternatives_are_the_likeliest_of_what_was_not_drawn_and_text_alone(drafter: ModelDrafter, target: CausalLM):
    source = opened(drafter, target, Rule.REJECTION, top_k=20)
    paths: list[tuple[int, ...]] = [()]
    for _ in range(3):
        rows = source.expand(paths, zero_width=0, choices=4)
        for [drawn, *others] in rows:
            assert drawn.proposal is not None and len(others) == 3
            q = sorted(zip(drawn.proposal.weights, drawn.proposal.ids, strict=True), reverse=True)
            likeliest = [token for _, token in q if token != drawn.proposal.token][:3]
            assert [other.text for other in others] == [target.tokenizer.vocab.bytes_of(token) for token in likeliest]
            assert all(other.proposal is None for other in others)
            assert drawn.confidence == q[0][0] / drawn.proposal.total, "whatever was drawn"
        tokens = [(*path, token.token) for path, row in zip(paths, rows, strict=True) for token in row if token.text]
        paths = tokens[:3]


def test_branches_of_one_batch_have_the_distributions_of_each_alone(drafter: ModelDrafter, target: CausalLM):
    source = opened(drafter, target, Rule.REJECTION, top_k=20)
    [row] = source.expand([()], zero_width=0, choices=3)
    paths = [(token.token,) for token in row if token.text]
    batch = source.expand(paths, zero_width=0, choices=1)
    for path, [drawn] in zip(paths, batch, strict=True):
        alone = opened(drafter, target, Rule.REJECTION, top_k=20)
        alone.move(path, 0, None)
        assert drawn.proposal is not None
        shares = {
            token: weight / drawn.proposal.total
            for token, weight in zip(drawn.proposal.ids, drawn.proposal.weights, strict=True)
        }
        assert gap(shares, alone.distribution()) < 1e-3  # weights are rounded to 2^-12


def test_an_enumeration_is_not_run_again_for_the_token_that_it_gave(
    drafter: ModelDrafter, target: CausalLM, monkeypatch: pytest.MonkeyPatch
):
    """Behind a token on which psi ran the model the next one begins with that row, in the cache and in the logits."""
    source: Any = opened(drafter, target, Rule.STRING_REJECTION, top_k=4)
    runs: list[int] = []
    forward = CausalLM.forward

    def counted(model: CausalLM, tokens: list[int], cache: KVCache) -> torch.Tensor:
        runs.append(1)
        return forward(model, tokens, cache)

    monkeypatch.setattr(CausalLM, "forward", counted)
    in_tree = source.logits_in_tree

    def enumerated(paths):  # which is what has to be run
        before = len(runs)
        rows = in_tree(paths)
        del runs[before:]
        return rows

    monkeypatch.setattr(source, "logits_in_tree", enumerated)
    path: tuple[int, ...] = ()
    reused = 0
    for _ in range(12):
        known = {onward for (onward,) in source.expanded}
        own = source.own_tokens(path)
        goes_on = own[len(source.run_ids) - len(source.context_ids) :] if source.run_ids else []
        runs.clear()
        [[token]] = source.expand([path], zero_width=0, choices=1)
        if len(goes_on) == 1 and goes_on[0] in known:
            assert not runs
            reused += 1
        if not token.text:
            break
        path += (token.token,)
    assert reused > 0


def test_the_model_is_not_changed(drafter: ModelDrafter, target: CausalLM):
    assert isinstance(drafter.model, CausalLM)
    before = {name: value.clone() for name, value in drafter.model.module.state_dict().items()}
    size = drafter.vocab_size
    for rule in RULES:
        source = opened(drafter, target, rule)
        source.expand([()], zero_width=0, choices=1)
        source.close()
    after = drafter.model.module.state_dict()
    assert drafter.vocab_size == size and all(torch.equal(after[name], value) for name, value in before.items())
