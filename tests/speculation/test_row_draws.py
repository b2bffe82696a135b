"""All rows of a step drawn at once: the very tokens that the sampler draws one by one, in every place of a tree."""

from __future__ import annotations

import random

import pytest
import torch

from speculation.drafts.candidates import CandidateTree
from speculation.errors import ModelError
from speculation.protocol.session_request import SessionRequest
from speculation.sampling import row_draws, warpers
from speculation.sampling.params import Rule, SamplingParams
from speculation.sampling.race import RaceNoise
from speculation.sampling.row_draws import draw_rows
from speculation.sampling.sampler import TokenSampler
from speculation.sampling.warpers import guess_rows, warp_rows
from speculation.verification.draft_verifier import DraftVerifier
from speculation.verification.rules import target_stream
from speculation.verification.step import Step
from tests.support.no_look import NoLook
from tests.support.text_models import TARGET_VOCAB

PROMPT = (0, 3, 7)
NOISE = RaceNoise(TARGET_VOCAB)
PADDING = torch.tensor(TARGET_VOCAB.padding_ids, dtype=torch.int64)
SETTINGS = [
    SamplingParams(),
    SamplingParams(temperature=1.0, seed=1),
    SamplingParams(temperature=0.7, seed=2**64 - 1),
    SamplingParams(temperature=1e-9, seed=3),
    SamplingParams(temperature=1e9, seed=4),
    SamplingParams(temperature=1.3, seed=5, top_k=5),
    SamplingParams(temperature=0.9, seed=6, top_p=0.8),
    SamplingParams(temperature=1.0, seed=7, top_k=40, top_p=0.95, min_p=0.01),
    SamplingParams(temperature=2.0, seed=8, min_p=0.1),
    SamplingParams(temperature=1.0, seed=9, repetition_penalty=1.3),
    SamplingParams(temperature=1.0, seed=9, top_k=9, presence_penalty=0.5, frequency_penalty=1.7),
    SamplingParams(frequency_penalty=2.0, repetition_penalty=0.5),
    SamplingParams(temperature=0.6, seed=11, logit_bias={1: 5.0, 2: -100.0, 7: 1.5}, repetition_penalty=2.0, top_p=0.9),
    SamplingParams(logit_bias={3: 4.0}),
]


def random_tree(rng: random.Random, size: int) -> CandidateTree:
    tokens = tuple(rng.randrange(TARGET_VOCAB.size) for _ in range(size))
    return CandidateTree(tokens, tuple(rng.randrange(-1, node) for node in range(size)))


def verifier_of(params: SamplingParams, rule: Rule) -> DraftVerifier:
    return DraftVerifier.of(SessionRequest(PROMPT, params, 100, 4096, rule=rule), TARGET_VOCAB, NOISE)


def logits_of(rng: random.Random, rows: int) -> torch.Tensor:
    """With ties, so that the lowest id has to win."""
    generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
    return torch.randn(rows, TARGET_VOCAB.size, generator=generator).mul(4).round().div(2)


def test_every_row_of_many_sessions_is_the_samplers_draw():
    rng = random.Random(5)
    for _ in range(20):
        asked = [(rng.choice(SETTINGS), rng.choice([Rule.RACE, Rule.EXACT])) for _ in range(rng.randrange(1, 9))]
        steps = [Step(0, random_tree(rng, rng.randrange(0, 12)), max_tokens=99) for _ in asked]
        wanted = [verifier_of(*each).rows_to_draw(step) for each, step in zip(asked, steps, strict=True)]
        logits = [logits_of(rng, 1 + len(step.candidates)) for step in steps]
        drawn = draw_rows(logits, [rows for rows in wanted if rows is not None], NOISE, PADDING).read()
        for (params, rule), step, rows, draws in zip(asked, steps, logits, drawn, strict=True):
            for node in range(-1, len(step.candidates)):
                sampler = TokenSampler(params, TARGET_VOCAB, NOISE, prompt_ids=PROMPT, stream=target_stream(rule))
                for number in step.candidates.path(node):
                    sampler.advance(step.candidates.tokens[number])
                assert draws[node + 1].token == sampler.draw(rows[node + 1])


@pytest.mark.parametrize("params", SETTINGS, ids=repr)
def test_no_value_is_looked_at_before_the_draws_are_read(params: SamplingParams):
    """A device that works by itself would be waited for then, and the host do nothing meanwhile."""
    step = Step(0, CandidateTree.chain([5, 9]), max_tokens=9)
    wanted = verifier_of(params, Rule.RACE).rows_to_draw(step)
    assert wanted is not None
    rows = logits_of(random.Random(3), 3)
    with NoLook():
        launched = draw_rows([rows], [wanted], NOISE, PADDING)
    assert len(launched.read()[0]) == 3


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.999, 1 - 1e-12])
def test_a_cut_that_was_not_guessed_is_made_again(top_p: float, monkeypatch: pytest.MonkeyPatch):
    """Rows of which a handful of tokens has the mass, and rows that leave more than are sorted at first, in a step."""
    monkeypatch.setattr(warpers, "GUESSES", (4, 24))
    peaked, flat = logits_of(random.Random(4), 3), torch.zeros(3, TARGET_VOCAB.size)
    peaked[:, 11] += 30
    params = SamplingParams(temperature=1.0, seed=12, top_p=top_p)
    step = Step(0, CandidateTree.chain([5, 9]), max_tokens=9)
    for rows in ([peaked, peaked], [flat, peaked], [peaked, flat], [flat, flat]):
        wanted = [verifier_of(params, Rule.RACE).rows_to_draw(step) for _ in rows]
        drawn = draw_rows(rows, [each for each in wanted if each is not None], NOISE, PADDING).read()
        for logits, draws in zip(rows, drawn, strict=True):
            sampler = TokenSampler(params, TARGET_VOCAB, NOISE, prompt_ids=PROMPT, stream=target_stream(Rule.RACE))
            for place, token in enumerate((5, 9, None)):
                assert draws[place].token == sampler.draw(logits[place])
                if token is not None:
                    sampler.advance(token)


def test_only_sessions_that_were_guessed_wrongly_are_drawn_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(warpers, "GUESSES", (4, 24))
    again: list[int] = []

    def counted(scores: torch.Tensor, tops: torch.Tensor, params: SamplingParams) -> torch.Tensor:
        again.append(len(scores))
        return warp_rows(scores, tops, params)

    monkeypatch.setattr(row_draws, "warp_rows", counted)
    peaked, flat = logits_of(random.Random(4), 3), torch.zeros(3, TARGET_VOCAB.size)
    peaked[:, 11] += 30
    step = Step(0, CandidateTree.chain([5, 9]), max_tokens=9)
    asked = [SamplingParams(temperature=1.0, seed=seed, top_p=0.9) for seed in range(3)]
    wanted = [verifier_of(params, Rule.RACE).rows_to_draw(step) for params in asked]
    rows = [each for each in wanted if each is not None]
    together = draw_rows([peaked, flat, peaked], rows, NOISE, PADDING).read()
    assert again == [3]
    alone = [draw_rows([each], [one], NOISE, PADDING) for each, one in zip([peaked, flat, peaked], rows, strict=True)]
    assert together == [launched.read()[0] for launched in alone]


@pytest.mark.parametrize("params", SETTINGS, ids=repr)
@pytest.mark.parametrize("rule", [Rule.RACE, Rule.EXACT])
def test_a_text_from_draws_is_the_text_from_logits(params: SamplingParams, rule: Rule):
    """Step by step, with drafts that agree now and then, both verifiers going on from what they committed."""
    rng = random.Random(8)
    by_draws, by_logits = verifier_of(params, rule), verifier_of(params, rule)
    accepted = 0
    for _ in range(40):
        rows = logits_of(rng, 4)
        plain = verifier_of(params, rule)
        guess = plain.verify(Step(0, CandidateTree()), rows[:1]).tokens
        step = Step(0, CandidateTree.chain([*guess, 7, 9][:3]), max_tokens=rng.randrange(1, 5))
        wanted = by_draws.rows_to_draw(step)
        assert wanted is not None
        [draws] = draw_rows([rows], [wanted], NOISE, PADDING).read()
        acceptance = by_draws.verify_draws(step, draws)
        assert acceptance == by_logits.verify(step, rows)
        accepted += acceptance.accepted
    assert accepted > 0


def test_logits_that_are_no_numbers_are_found_where_they_count():
    verifier = verifier_of(SamplingParams(temperature=1.0, seed=1), Rule.RACE)
    step = Step(0, CandidateTree.chain([5]), max_tokens=9)
    rows = logits_of(random.Random(1), 2)
    wanted = verifier.rows_to_draw(step)
    assert wanted is not None
    other_than = int(draw_rows([rows], [wanted], NOISE, PADDING).read()[0][0].token) == 5
    rows[1] = torch.nan  # behind a candidate that is not what the target draws: nobody looks
    assert not other_than
    [draws] = draw_rows([rows], [wanted], NOISE, PADDING).read()
    assert verifier.verify_draws(step, draws).accepted == 0
    rows[0, 3] = torch.nan
    again = verifier_of(SamplingParams(temperature=1.0, seed=1), Rule.RACE)
    wanted = again.rows_to_draw(step)
    assert wanted is not None
    [draws] = draw_rows([rows], [wanted], NOISE, PADDING).read()
    with pytest.raises(ModelError, match="usable maximum"):
        again.verify_draws(step, draws)


@pytest.mark.parametrize("rule", [Rule.REJECTION, Rule.STRING_REJECTION])
def test_a_rule_that_needs_probabilities_draws_row_by_row(rule: Rule):
    assert verifier_of(SamplingParams(), rule).rows_to_draw(Step(0, CandidateTree())) is None


@pytest.mark.parametrize("params", SETTINGS, ids=repr)
def test_a_row_is_drawn_alike_in_any_company(params: SamplingParams):
    """The scores themselves, before noise: equal bits alone and among sixty others, first and last."""
    rows = torch.randn(61, 1021, generator=torch.Generator().manual_seed(2))
    for row in (0, 17, 60):
        tops = rows.amax(-1, keepdim=True)
        if not params.greedy:
            alone = warp_rows(rows[row : row + 1], tops[row : row + 1], params)
            assert torch.equal(warp_rows(rows, tops, params)[row], alone[0])
            guessed, sure = guess_rows(rows, tops, params)
            assert torch.equal(guessed[row], alone[0]) and bool(sure.all())
