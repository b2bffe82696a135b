"""Texts whose rows are drawn all at once, as on a GPU, have the target's distribution under every rule and setting.

The paged engine on a CPU, whose draws are made by the code that makes them on a card; sessions share its steps, and a
drafter's guesses are verified. Truth, settings and resolution are those of ``test_rule_distributions``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from drafter_service.model_drafter import ModelDrafter
from engine.paged_engine import PagedEngine
from language_models.causal_lm import CausalLM
from speculation.sampling import row_draws
from speculation.sampling.params import Rule, SamplingParams
from tests.support.distributions import ALPHA
from tests.support.service_drivers import drafters, drafting, serving
from tests.support.text_distributions import AT_ONCE, DRAWS, PLAN, draw, p_value, settings_of
from tests.support.tiny_models import load_tiny
from verifier_service import shared_step


@pytest.fixture(scope="module")
def target(tiny_qwen2: Path) -> CausalLM:
    return load_tiny(tiny_qwen2)


@pytest.fixture(scope="module")
def engine(tiny_qwen2: Path) -> PagedEngine:
    made = PagedEngine(load_tiny(tiny_qwen2), kv_bytes=4 << 20, rows=16)
    made.draws_all_rows = True
    return made


async def check(
    engine: PagedEngine,
    target: CausalLM,
    folder: Path,
    rule: Rule,
    kinds: Iterable[str],
    *,
    draws: int = DRAWS,
) -> tuple[float, int]:
    """The least p-value of these settings, and the least number of draft tokens that were accepted."""
    results = []
    drafter = ModelDrafter(load_tiny(folder))
    async with (
        serving(engine, plan=PLAN, adaptive=False) as (verifier, address),
        drafting(address, drafter, max_sessions=AT_ONCE),
    ):
        await drafters(verifier, 1)
        for settings in kinds:
            counts, accepted = await draw(address, rule, settings, draws=draws)
            results.append((p_value(counts, target, settings), accepted))
    return min(p for p, _ in results), min(accepted for _, accepted in results)


@pytest.mark.slow
@pytest.mark.parametrize("rule", Rule.concrete())
async def test_texts_are_the_targets(
    engine: PagedEngine, target: CausalLM, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, rule: Rule
):
    drawn = 0

    def counted(logits: Any, wanted: Any, noise: Any, padding: Any) -> row_draws.LaunchedDraws:
        nonlocal drawn
        drawn += sum(len(rows.places) for rows in wanted)
        return row_draws.draw_rows(logits, wanted, noise, padding)

    monkeypatch.setattr(shared_step, "draw_rows", counted)
    p, accepted = await check(engine, target, tiny_llama, rule, ["penalties"] if rule.proposes else settings_of(rule))
    assert p > ALPHA
    assert accepted > DRAWS / 20, "drafts took part"
    assert (drawn > DRAWS) is not rule.proposes, "where probabilities are needed, each row is drawn by itself"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "forgotten"),
    [("temperature", {"seed": 1}), ("top-p", {}), ("penalties", {"counts": {}, "paths": ()})],
)
async def test_planted_bugs_are_found(
    engine: PagedEngine,
    target: CausalLM,
    tiny_llama: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: str,
    forgotten: Any,
):
    """One seed for all texts, temperature without cuts, penalties without what was generated: each of them so far from
    the truth that fewer draws tell."""

    def uncut(scores: torch.Tensor, tops: torch.Tensor, params: SamplingParams) -> tuple[torch.Tensor, torch.Tensor]:
        return (scores - tops) / params.temperature, torch.ones(len(scores), dtype=torch.bool)

    def forgetful(logits: Any, wanted: Any, noise: Any, padding: Any) -> row_draws.LaunchedDraws:
        return row_draws.draw_rows(logits, [dataclasses.replace(rows, **forgotten) for rows in wanted], noise, padding)

    if settings == "top-p":
        monkeypatch.setattr(row_draws, "guess_rows", uncut)
    else:
        monkeypatch.setattr(shared_step, "draw_rows", forgetful)
    p, _ = await check(engine, target, tiny_llama, Rule.RACE, [settings], draws=DRAWS * 5 // 8)
    assert p < ALPHA
