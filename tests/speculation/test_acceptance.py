"""Verification: for every draft the committed text is that of plain decoding, and that is the target's.

The target is a Markov model over seven ids, small enough to try every draft and to enumerate every text. The tests
are tested too: samplers with a planted bug must fail them.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speculation.drafts.candidates import ROOT, CandidateTree
from speculation.sampling.params import SamplingParams
from speculation.sampling.race import RaceNoise
from speculation.sampling.sampler import TokenSampler
from speculation.text.byte_vocab import ByteVocab
from speculation.verification.rules import accept_exact, accept_race
from speculation.verification.step import Acceptance
from tests.support.distributions import ALPHA, detectable_tv, g_test

# a, b, ab, another a, pause, end, padding
VOCAB = ByteVocab((b"a", b"b", b"ab", b"a", None, None, None), special={4: "<pause>", 5: "<end>"}, end_ids=(5,))
NOISE = RaceNoise(VOCAB)
IDS = range(6)
END = 5
LENGTH = 6
RULES = {"race": accept_race, "target": accept_exact}

TABLE = torch.randn(7, 7, generator=torch.Generator().manual_seed(1)) * 0.7
TABLE[:, 4] += 0.8  # many tokens without bytes: the place must move on with them too
TABLE[:, END] -= 1.0
TABLE[:, 6] = 9.0  # padding: never to be drawn


def target(ids) -> torch.Tensor:
    """Logits after ``ids``: a Markov model."""
    return TABLE[ids[-1] if ids else 6]


PARAMS = [
    SamplingParams(),
    SamplingParams(temperature=1.0, seed=1),
    SamplingParams(temperature=1.0, seed=2),
    SamplingParams(0.8, top_k=4, top_p=0.95, repetition_penalty=1.2, frequency_penalty=0.4, seed=9),
]


def plain(params: SamplingParams, stream: str, length: int = LENGTH) -> list[int]:
    """The target alone, one token after another."""
    sampler = TokenSampler(params, VOCAB, NOISE, prompt_ids=[0], stream=stream)
    while len(sampler.tokens) < length and END not in sampler.tokens:
        sampler.advance(sampler.draw(target(sampler.tokens)))
    return list(sampler.tokens)


def rows_for(committed: list[int], draft) -> torch.Tensor:
    return torch.stack([target(committed + list(draft[:i])) for i in range(len(draft) + 1)])


def speculative(
    params: SamplingParams, stream: str, draft, sampler_class=TokenSampler, length: int = LENGTH
) -> list[int]:
    """The same text in blocks: at every step the target is offered the same draft."""
    sampler = sampler_class(params, VOCAB, NOISE, prompt_ids=[0], stream=stream)
    ids: list[int] = []
    while len(ids) < length and END not in ids:
        verdict = RULES[stream](rows_for(ids, draft), CandidateTree.chain(draft), sampler, max_tokens=length - len(ids))
        assert 0 <= verdict.accepted <= len(draft)
        assert len(verdict.tokens) - verdict.accepted in (0, 1)
        assert verdict.tokens[: verdict.accepted] == tuple(draft[: verdict.accepted])
        ids += verdict.tokens
        assert sampler.tokens == tuple(ids)
    return ids


def drafts(longest: int):
    return itertools.chain.from_iterable(itertools.product(IDS, repeat=k) for k in range(longest + 1))


@pytest.mark.parametrize("stream", RULES)
@pytest.mark.parametrize("params", PARAMS, ids=["greedy", "seed 1", "seed 2", "all settings"])
def test_every_draft_gives_the_plain_text(params, stream):
    expected = plain(params, stream)
    for draft in drafts(3):
        assert speculative(params, stream, draft) == expected


@pytest.mark.parametrize("stream", RULES)
@pytest.mark.parametrize("params", PARAMS, ids=["greedy", "seed 1", "seed 2", "all settings"])
def test_right_drafts_of_every_length_are_accepted(params, stream):
    expected = plain(params, stream)
    for k in range(len(expected) + 1):
        draft = expected[:k]
        sampler = TokenSampler(params, VOCAB, NOISE, prompt_ids=[0], stream=stream)
        verdict = RULES[stream](rows_for([], draft), CandidateTree.chain(draft), sampler, max_tokens=99)
        assert verdict.accepted == k
        ended = k and draft[-1] == END
        assert len(verdict.tokens) == (k if ended else k + 1), "the bonus token, but nothing after the end"
        assert list(verdict.tokens[: len(expected)]) == expected[: len(verdict.tokens)]


def test_rows_after_a_mismatch_are_not_looked_at():
    params = PARAMS[1]
    expected = plain(params, "race")
    for agreed in range(3):
        wrong = next(token for token in IDS if token != expected[agreed])
        draft = [*expected[:agreed], wrong, 0, 0]
        rows = rows_for([], draft)
        rows[agreed + 1 :] = torch.nan
        sampler = TokenSampler(params, VOCAB, NOISE, prompt_ids=[0])
        verdict = accept_race(rows, CandidateTree.chain(draft), sampler, max_tokens=99)
        assert verdict == Acceptance(tuple(expected[: agreed + 1]), agreed, tuple(range(agreed)))


@st.composite
def trees(draw) -> CandidateTree:
    """Any tree of up to 7 candidates, siblings all different."""
    tokens: list[int] = []
    parents: list[int] = []
    for node in range(draw(st.integers(0, 7))):
        parent = draw(st.integers(ROOT, node - 1))
        token = draw(st.sampled_from(IDS))
        if (parent, token) not in zip(parents, tokens, strict=True):
            tokens.append(token)
            parents.append(parent)
        else:
            break
    return CandidateTree(tuple(tokens), tuple(parents))


@given(tree=trees(), stream=st.sampled_from(sorted(RULES)), params=st.sampled_from(PARAMS))
def test_every_tree_of_candidates_gives_the_plain_text(tree, stream, params):
    expected = plain(params, stream)
    sampler = TokenSampler(params, VOCAB, NOISE, prompt_ids=[0], stream=stream)
    ids: list[int] = []
    while len(ids) < LENGTH and END not in ids:
        paths = [[tree.tokens[n] for n in tree.path(node)] for node in range(ROOT, len(tree))]
        rows = torch.stack([target(ids + path) for path in paths])
        verdict = RULES[stream](rows, tree, sampler, max_tokens=LENGTH - len(ids))
        assert [tree.tokens[node] for node in verdict.path] == list(verdict.tokens[: verdict.accepted])
        assert not verdict.path or tree.path(verdict.path[-1]) == verdict.path, (
            "the accepted are one path from the root"
        )
        longest = [path for path in paths if path == expected[len(ids) : len(ids) + len(path)]]
        assert verdict.accepted == max(map(len, longest)), "what agrees anywhere in the tree is accepted"
        ids += verdict.tokens
    assert ids == expected


@pytest.mark.parametrize("cap", [1, 2, 3])
def test_never_more_than_max_tokens(cap):
    expected = plain(PARAMS[1], "race")
    sampler = TokenSampler(PARAMS[1], VOCAB, NOISE, prompt_ids=[0])
    verdict = accept_race(rows_for([], expected), CandidateTree.chain(expected), sampler, max_tokens=cap)
    assert verdict == Acceptance(tuple(expected[:cap]), cap, tuple(range(cap)))


def test_misuse_is_refused():
    race = TokenSampler(PARAMS[1], VOCAB, NOISE)
    own = TokenSampler(PARAMS[1], VOCAB, NOISE, stream="target")
    rows = rows_for([], [0])
    with pytest.raises(ValueError, match="independently"):
        accept_exact(rows, CandidateTree.chain([0]), race, max_tokens=1)
    with pytest.raises(ValueError, match="the drafter uses too"):
        accept_race(rows, CandidateTree.chain([0]), own, max_tokens=1)
    with pytest.raises(ValueError, match="2 draft tokens need 3 rows"):
        accept_race(rows, CandidateTree.chain([0, 1]), race, max_tokens=1)


# ---- whole texts have the target's distribution -------------------------------------------------------------------

SAMPLES = 4000
DEPTH = 2


def exact_distribution(params: SamplingParams) -> dict[tuple[int, ...], float]:
    """Probability of every text of DEPTH tokens, by enumeration."""
    found: dict[tuple[int, ...], float] = {}

    def descend(ids: tuple[int, ...], probability: float) -> None:
        if len(ids) == DEPTH or END in ids:
            found[ids] = probability
            return
        sampler = TokenSampler(params, VOCAB, NOISE, prompt_ids=[0])
        for token in ids:
            sampler.advance(token)
        for token, log_p in enumerate(sampler.log_probs(target(ids)).double().tolist()):
            if log_p > -torch.inf:
                descend((*ids, token), probability * float(torch.tensor(log_p).double().exp()))

    descend((), 1.0)
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)
    return found


def p_value_of_texts(stream: str, sampler_class=TokenSampler) -> float:
    """G-test of SAMPLES texts, one seed each, the draft always the likeliest tokens; rare texts are one class."""
    exact = exact_distribution(SamplingParams(temperature=1.0))
    common = [text for text, p in exact.items() if p * SAMPLES >= 10]
    rare = 1 - sum(exact[text] for text in common)
    counts = dict.fromkeys([*common, None], 0)
    draft = max(exact, key=lambda text: exact[text])
    for seed in range(SAMPLES):
        params = SamplingParams(temperature=1.0, seed=seed)
        text = tuple(speculative(params, stream, draft, sampler_class, DEPTH))
        counts[text if text in counts else None] += 1
    assert detectable_tv(SAMPLES, len(counts)) < 0.09
    total = sum(exact[text] for text in common) + rare
    return g_test(list(counts.values()), [*(exact[text] / total for text in common), rare / total])


@pytest.mark.parametrize("stream", RULES)
def test_texts_have_the_targets_distribution(stream):
    assert p_value_of_texts(stream) > ALPHA


# ---- the tests are tested -----------------------------------------------------------------------------------------


class StandsStill(TokenSampler):
    """Planted bug: the noise of every token is that of the first place."""

    @property
    def offset(self) -> int:
        return 0

    @property
    def zero_width(self) -> int:
        return 0


class ForgetsZeroWidth(TokenSampler):
    """Planted bug: after a token without bytes the same noise is used again."""

    @property
    def zero_width(self) -> int:
        return 0


class CountsTokens(TokenSampler):
    """Planted bug: noise by the number of tokens, not bytes, so that tokens and text get out of step."""

    @property
    def offset(self) -> int:
        return len(self.tokens)


class Sharpens(TokenSampler):
    """Planted bug: likely tokens, which drafts are made of, are taken a little too often."""

    def draw(self, logits: torch.Tensor, *, zero_width: int | None = None) -> int:
        return super().draw(logits * 1.3, zero_width=zero_width)


@pytest.mark.parametrize("bug", [StandsStill, ForgetsZeroWidth, Sharpens])
def test_a_wrong_sampler_fails_the_test_of_the_distribution(bug):
    assert p_value_of_texts("race", bug) < ALPHA


@pytest.mark.parametrize("bug", [StandsStill, ForgetsZeroWidth, CountsTokens, Sharpens])
def test_a_wrong_sampler_fails_the_test_of_the_text(bug):
    seeds = [SamplingParams(temperature=1.0, seed=seed) for seed in range(40)]
    assert any(speculative(params, "race", (0, 1), bug) != plain(params, "race") for params in seeds)
