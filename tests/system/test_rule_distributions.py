"""Texts drawn through two processes have the target's distribution, under every rule and kind of setting.

The drafter is a process of its own with another vocabulary (and, once, the same); every seed gives one sequence. The
truth is enumerated from plain forward passes, with the settings written out anew in float64. Each test states the
smallest total variation that it would find, and bugs planted in a twin of the stack are found by it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from drafter_service.draft_source import Path as TokenPath
from drafter_service.model_drafter import ModelDrafter
from drafter_service.proposing_source import ProposingSource
from dragoman.processes import child
from language_models.causal_lm import CausalLM
from speculation.protocol.proposal import Proposal
from speculation.sampling.alignment import Alignment
from speculation.sampling.params import Rule
from speculation.sessions.drafter_session import DraftToken
from speculation.verification import rules
from tests.support import tiny_models
from tests.support.distributions import ALPHA
from tests.support.service_drivers import drafters, drafting, serving
from tests.support.text_distributions import AT_ONCE, DRAWS, PLAN, draw, p_value, settings_of
from transport.address import Address
from verifier_service.transformers_engine import TransformersEngine
from verifier_service.verifier import Verifier


@pytest.fixture(scope="module")
def target(tiny_qwen2: Path) -> CausalLM:
    return CausalLM.load(str(tiny_qwen2), dtype="float32", threads=1)


@pytest.fixture(scope="module")
def drafter(tmp_path_factory: pytest.TempPathFactory, target: CausalLM) -> Path:
    """Trained on the same text, with fewer and other tokens."""
    path = tiny_models.tiny_llama(tmp_path_factory.mktemp("models") / "small-llama", vocab=300)
    ours = CausalLM.load(str(path), dtype="float32", threads=1).tokenizer.vocab
    alignment = Alignment(ours, target.tokenizer.vocab)
    assert not alignment.same and alignment.common < target.vocab_size - 20
    return path


async def check(target: CausalLM, folder: Path, rule: Rule, kinds: Iterable[str]) -> None:
    """The drafter is a process of its own."""
    async with serving(TransformersEngine(target), plan=PLAN, adaptive=False) as (verifier, address):
        options = [f"--model={folder}", f"--verifier={address}", "--dtype=float32", "--threads=1"]
        options += [f"--max-sessions={AT_ONCE}"]
        async with child("drafter", ["drafter", *options]) as process:
            await process.ready()
            await drafters(verifier, 1)
            for settings in kinds:
                counts, accepted = await draw(address, rule, settings)
                assert accepted > DRAWS / 10, "drafts took part"
                assert p_value(counts, target, settings) > ALPHA, settings


@pytest.mark.slow
@pytest.mark.parametrize("rule", Rule.concrete())
async def test_texts_through_two_processes_are_the_targets(target: CausalLM, drafter: Path, rule: Rule):
    await check(target, drafter, rule, settings_of(rule))


@pytest.mark.slow
async def test_texts_of_a_pair_with_one_vocabulary_are_the_targets(target: CausalLM, tiny_llama: Path):
    model = CausalLM.load(str(tiny_llama), dtype="float32", threads=1)
    assert model.tokenizer.vocab.content_hash == target.tokenizer.vocab.content_hash
    assert model.vocab_size != target.vocab_size, "padded"
    await check(target, tiny_llama, Rule.REJECTION, ["temperature"])


# ---- the tests are tested: the same stack in one process, with a bug in it ------------------------------------------


class PermutingSource(ProposingSource):
    """Planted bug: the probabilities stand at other tokens than they belong to."""

    def expand(self, paths: Sequence[TokenPath], *, zero_width: int, choices: int) -> list[list[DraftToken]]:
        rows = super().expand(paths, zero_width=zero_width, choices=choices)
        return [[permuted(token) for token in row] for row in rows]


def permuted(token: DraftToken) -> DraftToken:
    drawn = token.proposal
    if drawn is None:
        return token
    weights = (*drawn.weights[1:], drawn.weights[0])
    return dataclasses.replace(token, proposal=Proposal(drawn.token, drawn.ids, weights))


async def twin(target: CausalLM, folder: Path) -> float:
    async with serving(TransformersEngine(target), plan=PLAN, adaptive=False) as (verifier, address):
        return await with_drafter(verifier, address, target, folder)


async def with_drafter(verifier: Verifier, address: Address, target: CausalLM, folder: Path) -> float:
    model = CausalLM.load(str(folder), dtype="float32", threads=1)
    async with drafting(address, ModelDrafter(model), max_sessions=AT_ONCE):
        await drafters(verifier, 1)
        counts, accepted = await draw(address, Rule.REJECTION, "temperature")
        assert accepted > DRAWS / 10
        return p_value(counts, target, "temperature")


@pytest.mark.slow
@pytest.mark.parametrize("bug", ["none", "resample from p", "q permuted"])
async def test_planted_bugs_are_found(
    target: CausalLM, drafter: Path, monkeypatch: pytest.MonkeyPatch, bug: str
) -> None:
    """And the twin without one passes, so it is the bug that is found."""
    if bug == "resample from p":
        monkeypatch.setattr(rules, "residual", lambda p, proposal: p)
    if bug == "q permuted":
        monkeypatch.setattr("drafter_service.model_drafter.ProposingSource", PermutingSource)
    assert (await twin(target, drafter) < ALPHA) is (bug != "none")
