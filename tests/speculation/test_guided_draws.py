"""Draws under a guide: the target's distribution, restricted to what is allowed at each place, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch

from speculation.drafts.candidates import CandidateTree
from speculation.errors import SessionError
from speculation.protocol.session_request import SessionRequest
from speculation.sampling.mask import allowed_rows
from speculation.sampling.params import Rule, SamplingParams
from speculation.sampling.race import RaceNoise
from speculation.sampling.row_draws import draw_rows
from speculation.sampling.sampler import TokenSampler
from speculation.verification.draft_verifier import DraftVerifier
from speculation.verification.step import Step
from tests.support import enumerated_run
from tests.support.branching import Chooser, distribution
from tests.support.enumerated_run import EnumeratedRun
from tests.support.enumerated_text import EXACT, PLAN, SETTINGS, session_gap
from tests.support.listed_guide import ListedGuide, allowed_after
from tests.support.text_models import TARGET_VOCAB
from tests.support.tiny_pairs import PAIRS, WORDS, TinyPair, true_sequences

NOISE = RaceNoise(TARGET_VOCAB)
TEXTS = {"words": (b"ab", b"aba", b"bb"), "doubles": (b"a\n", b"ab", b"a"), "same": (b"ab", b"ba", b"b")}
#: The drafter drafts and sends; the target steps with whatever came, or before anything does.
SCHEDULES = ("ddUsV", "sdUV")


@pytest.mark.parametrize("size", [1, 8, 31, 32, 33, 273])
def test_a_bit_is_a_token(size: int):
    rng = random.Random(size)
    rows = [[rng.random() < 0.5 for _ in range(size)] for _ in range(3)]
    masks = []
    for row in rows:
        mask = bytearray(b"\xff" * (4 * -(-size // 32)))  # bits beyond the vocabulary say nothing
        for token, allowed in enumerate(row):
            if not allowed:
                mask[token // 8] &= ~(1 << token % 8)
        masks.append(bytes(mask))
    assert allowed_rows(masks, size, torch.device("cpu")).tolist() == rows


@pytest.mark.parametrize("params", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("rule", [Rule.RACE, Rule.EXACT])
@pytest.mark.parametrize("pair", PAIRS)
def test_sessions_write_the_targets_restricted_distribution(pair: str, rule: Rule, params: SamplingParams):
    """Every text, every draw and every draft enumerated; what the guide forces is drafted, too."""
    for schedule in SCHEDULES if pair != "doubles" else SCHEDULES[1:]:
        gap = session_gap(PAIRS[pair], rule, schedule, params=params, texts=TEXTS[pair])
        assert gap < EXACT, schedule


class Forgetful(ListedGuide):
    """Lets everything pass at the last token."""

    def masks(self, paths: Sequence[tuple[int, ...]]) -> list[bytes]:
        found = super().masks(paths)
        return [b"\xff" * len(mask) for mask in found] if len(self.committed) == 2 else found

    def advance(self, token: int) -> None:
        self.committed.append(token)


def test_the_enumeration_notices_a_row_without_its_mask(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(enumerated_run, "ListedGuide", Forgetful)
    assert session_gap(WORDS, Rule.RACE, "s", texts=TEXTS["words"]) > 0.01


def test_only_what_is_allowed_has_a_share():
    found = true_sequences(
        WORDS.target, SETTINGS["plain"], 4, allowed=lambda text: allowed_after(text, TEXTS["words"], WORDS.target.vocab)
    )
    vocab = WORDS.target.vocab
    assert {vocab.text(ids) for ids in found if ids[-1] in vocab.end_ids} == set(TEXTS["words"])


def test_forced_text_is_accepted_in_fewer_steps():
    """The target alone, nobody drafts: what a guide forces is there, and saves steps."""

    def steps(pair: TinyPair, texts: tuple[bytes, ...]) -> float:
        def play(chooser: Chooser) -> int:
            run = EnumeratedRun(pair, Rule.RACE, SETTINGS["plain"], chooser, length=12, plan=PLAN, texts=texts)
            run.play("s")
            return run.target.stats.steps

        return sum(count * share for count, share in distribution(play).items())

    assert steps(WORDS, (b"abababab",)) < 4 < 9


@pytest.mark.parametrize("rule", [Rule.RACE, Rule.EXACT])
def test_rows_are_drawn_as_one_by_one(rule: Rule):
    """All rows of trees at once, with masks, against the sampler at each place."""
    rng = random.Random(3)
    texts = (b"the cat sat on the mat", b"the dog too", "the 猫".encode(), b"then")
    settings = [
        SamplingParams(),
        SamplingParams(1.0, seed=2),
        SamplingParams(0.7, top_p=0.8, top_k=5, repetition_penalty=1.4, logit_bias={5: 9.0, 256: -3.0}, seed=3),
    ]
    padding = torch.tensor(TARGET_VOCAB.padding_ids, dtype=torch.int64)
    for params in settings:
        request = SessionRequest((0, 3), params, 100, 4096, rule=rule)
        guide, alone = ListedGuide(TARGET_VOCAB, texts), ListedGuide(TARGET_VOCAB, texts)
        verifier = DraftVerifier.of(request, TARGET_VOCAB, NOISE, guide=guide)
        single = DraftVerifier.of(request, TARGET_VOCAB, NOISE, guide=alone)
        written: list[int] = []
        while not (written and written[-1] in TARGET_VOCAB.end_ids):
            paths = [path for path in _paths(alone, rng)]
            step = Step(0, CandidateTree.chain(paths), max_tokens=99)
            generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
            logits = torch.randn(1 + len(step.candidates), TARGET_VOCAB.size, generator=generator) * 4
            rows = verifier.rows_to_draw(step)
            assert rows is not None and len(rows.masks) == 1 + len(paths)
            [draws] = draw_rows([logits], [rows], NOISE, padding).read()
            accepted = verifier.verify_draws(step, draws)
            assert accepted == single.verify(step, logits)
            written += accepted.tokens
        assert TARGET_VOCAB.text(written) in texts


def _paths(guide: ListedGuide, rng: random.Random) -> list[int]:
    path: list[int] = []
    for _ in range(rng.randrange(4)):
        possible = [t for t in range(TARGET_VOCAB.size) if guide.fits((*path, t)) and t not in TARGET_VOCAB.end_ids]
        if not possible:
            break
        path.append(rng.choice(possible))
    return path


def test_a_sampler_without_a_guide_has_no_masks():
    sampler = TokenSampler(SamplingParams(), TARGET_VOCAB, NOISE)
    assert sampler.rows_after([(), (1,)]).masks == ()


def test_a_guide_is_told_what_is_committed_and_nothing_is_taken_back():
    guide = ListedGuide(TARGET_VOCAB, (b"the mat",))
    sampler = TokenSampler(SamplingParams(), TARGET_VOCAB, NOISE, guide=guide)
    sampler.advance(256)
    assert guide.committed == [256]
    with pytest.raises(AssertionError):
        sampler.truncate(0)
    with pytest.raises(SessionError):
        sampler.advance(0)
