"""The model drafter: its own tokens, cache and template, corrected to any text. Also the target through real models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drafter_service.linear_draft import LinearDraft
from drafter_service.model_draft_source import ModelDraftSource
from drafter_service.model_drafter import ModelDrafter
from language_models.causal_lm import CausalLM
from speculation.errors import SessionError
from speculation.protocol.messages import Prompt, SessionOffer, SpeculationPlan
from speculation.sampling.params import Rule, SamplingParams

PROMPT = Prompt(text="The heron")
FAMILIES = ["tiny_llama", "tiny_gemma"]


@pytest.fixture(scope="module", params=FAMILIES)
def drafter(request: pytest.FixtureRequest) -> ModelDrafter:
    return ModelDrafter(CausalLM.load(str(request.getfixturevalue(request.param)), dtype="float32", device="cpu"))


def opened(drafter: ModelDrafter, sampling: SamplingParams, committed: bytes = b"") -> ModelDraftSource:
    source = drafter.open(SessionOffer("s", PROMPT, sampling, Rule.RACE, committed, 0, SpeculationPlan()))
    assert isinstance(source, ModelDraftSource)
    return source


def open_source(drafter: ModelDrafter, committed: bytes = b"", **sampling) -> LinearDraft:
    return LinearDraft(opened(drafter, SamplingParams(**sampling), committed))


GREEDY = SamplingParams()
#: So that what is drawn depends on the place in the text.
SAMPLED = SamplingParams(temperature=0.8, seed=6)
TEXTS = st.sampled_from(
    [b" stands in the shallow", b" waits", " 猫が".encode(), "猫".encode()[:2], b"\n\n\n", b"qz", b""]
)


@settings(max_examples=40)
@given(moves=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30), TEXTS), min_size=1, max_size=6))
def test_stands_at_exactly_the_corrected_text_with_a_matching_cache(drafter: ModelDrafter, moves):
    """After any drafting and corrections, the next token is that of a source that never saw anything else."""
    source = opened(drafter, SAMPLED)
    draft = LinearDraft(source)
    prompt, text = source.context_ids, b""
    for drafts, back, correction in moves:
        for _ in range(drafts):
            token = draft.next_token()
            if token.ends or token.stops:
                break
            text += token.text
        keep = max(0, len(text) - back)
        text = text[:keep] + correction
        draft.correct(keep, correction)
        assert source.text == text
        assert source.cached_tokens <= len(source.context_ids)
    fresh = fresh_at(drafter, source.context_ids[len(prompt) :], SAMPLED)
    assert fresh.context_ids == source.context_ids
    torch.testing.assert_close(source.log_probs(), fresh.log_probs(), atol=1e-3, rtol=0.0)
    [[drawn]], [[alone]] = (each.expand([()], zero_width=0, choices=1) for each in (source, fresh))
    assert drawn.token == alone.token, "it is drawn for the same place in the text"


def fresh_at(drafter: ModelDrafter, ids: list[int], sampling: SamplingParams = GREEDY) -> ModelDraftSource:
    """A source that never saw anything but these tokens."""
    source = opened(drafter, sampling)
    source.move(tuple(ids), 0, None)
    return source


@settings(max_examples=25)
@given(data=st.data())
def test_a_tree_drafts_what_its_branches_would_draft_alone(drafter: ModelDrafter, data: st.DataObject):
    """Every batch of branches, after any selection, gives each branch's own choices and probabilities."""
    source = fresh_at(drafter, [])
    prompt = source.context_ids
    leaves: list[tuple[int, ...]] = [()]
    run: set[tuple[int, ...]] = set()  # places of the tree whose token the model was run on
    for _ in range(5):
        paths = data.draw(st.lists(st.sampled_from(leaves), min_size=1, max_size=3, unique=True))
        for path, choices in zip(paths, source.expand(paths, zero_width=0, choices=3), strict=True):
            fresh = fresh_at(drafter, [*source.context_ids[len(prompt) :], *path])
            [alone] = fresh.expand([()], zero_width=0, choices=3)
            assert [choice.token for choice in choices] == [choice.token for choice in alone]
            assert [c.confidence for c in choices] == pytest.approx([c.confidence for c in alone], abs=1e-4)
            leaves.remove(path)
            run |= {path} - {()}
            leaves += [(*path, choice.token) for choice in choices if choice.text]
        if not leaves:
            return
        if data.draw(st.booleans()):  # a verdict selects a branch
            chosen = data.draw(st.sampled_from(leaves))
            chosen = chosen[: data.draw(st.integers(1, len(chosen)))]
            source.move(chosen, 0, None)
            leaves = [path[len(chosen) :] for path in leaves if path[: len(chosen)] == chosen]
            run = {path[len(chosen) :] for path in run if path[: len(chosen)] == chosen and path != chosen}
            assert source.cached_tokens <= len(source.context_ids) + len(run)


def test_drafts_what_its_model_says_and_agrees_with_a_restart(drafter: ModelDrafter):
    source = opened(drafter, GREEDY)
    ids, draft, model = source.context_ids, LinearDraft(source), drafter.model
    text = b"".join(draft.next_token().text for _ in range(8))
    for _ in range(8):  # greedy, without a cache
        ids.append(int(model.forward(ids, model.new_cache())[-1].argmax()))
    assert text == model.tokenizer.vocab.text(ids[-8:]) and len(text) > 16
    again = open_source(drafter, committed=text[:7])
    assert b"".join(again.next_token().text for _ in range(5)).startswith(text[7:14])


def test_a_bias_on_target_ids_does_not_reach_the_drafter(drafter: ModelDrafter):
    plain = open_source(drafter).next_token()
    biased = open_source(drafter, logit_bias={token: 50.0 for token in range(300, 380)}).next_token()
    assert plain == biased


def test_prompts_beyond_its_context_are_declined(drafter: ModelDrafter):
    prompt = Prompt(text="heron " * 600)
    offer = SessionOffer("s", prompt, SamplingParams(), Rule.RACE, b"", 0, SpeculationPlan())
    with pytest.raises(SessionError, match="context"):
        drafter.open(offer)


def test_rests_at_the_end_of_its_context(drafter: ModelDrafter):
    source = open_source(drafter)
    source.correct(0, b"the heron waits for a fish. " * 100)
    assert source.next_token().stops


def test_measures_itself_and_changes_nothing(drafter: ModelDrafter):
    before = open_source(drafter).next_token()
    assert drafter.measure() > 0
    assert open_source(drafter).next_token() == before


def test_int8_drafter_drafts(tiny_llama: Path):
    drafter = ModelDrafter(CausalLM.load(str(tiny_llama), dtype="int8", device="cpu"))
    source = open_source(drafter)
    assert b"".join(source.next_token().text for _ in range(6)).startswith(b" stands")
