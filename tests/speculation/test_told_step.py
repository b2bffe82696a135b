"""What is told of a step: counts, the rest of its likeliest branch, and whose guess that was."""

from __future__ import annotations

import dataclasses

from speculation.drafts.candidates import ROOT, CandidateTree
from speculation.protocol.messages import SpeculationPlan
from speculation.sessions.told_step import told_step
from speculation.source import DRAFTER, LOOKUP, RECYCLED, SourceKind
from speculation.verification.step import Acceptance, Step
from tests.support.text_models import TARGET_VOCAB

PLAN = SpeculationPlan(width=5)
#: "a" -> "b" -> "c" is the likeliest branch, "x" -> "y" another, which was looked up.
TREE = CandidateTree(
    tokens=tuple(b"abxyc"), parents=(ROOT, 0, ROOT, 2, 1), sources=(DRAFTER, DRAFTER, LOOKUP, LOOKUP, DRAFTER)
)


def told(*tokens: int, path: tuple[int, ...]):
    acceptance = Acceptance(tokens, len(path), path)
    return told_step(Step(0, TREE), acceptance, committed=len(tokens), plan=PLAN, vocab=TARGET_VOCAB)


def test_without_an_accepted_token_the_likeliest_branch_was_refused():
    step = told(ord("z"), path=())
    assert (step.draft_tokens, step.accepted_tokens, step.positions) == (5, 0, 3)
    assert step.rejected == b"abc" and step.rejected_source is SourceKind.DRAFTER
    assert step.plan == PLAN and step.round_trip is None


def test_after_accepted_tokens_it_is_the_rest_of_their_branch():
    step = told(*b"abz", path=(0, 1))
    assert (step.accepted_tokens, step.rejected) == (2, b"c")
    step = told(*b"xz", path=(2,))
    assert (step.rejected, step.rejected_source) == (b"y", SourceKind.LOOKUP)


def test_of_a_branch_that_was_accepted_whole_nothing_was_refused():
    step = told(*b"abcz", path=(0, 1, 4))
    assert (step.accepted_tokens, step.rejected, step.rejected_source) == (3, b"", None)


def test_what_was_recycled_is_not_told_where_it_was_refused():
    """It may come from another text; what a drafter sent beside it is told."""
    sources = (RECYCLED, RECYCLED, LOOKUP, RECYCLED, RECYCLED)
    tree = dataclasses.replace(TREE, sources=sources)
    refused = told_step(Step(0, tree), Acceptance((9,), 0), committed=1, plan=PLAN, vocab=TARGET_VOCAB)
    assert (refused.rejected, refused.rejected_source, refused.draft_tokens) == (b"x", SourceKind.LOOKUP, 5)
    half = told_step(Step(0, tree), Acceptance(tuple(b"az"), 1, (0,)), committed=2, plan=PLAN, vocab=TARGET_VOCAB)
    assert (half.accepted_tokens, half.rejected, half.rejected_source) == (1, b"", None)


def test_what_a_stop_string_cut_off_was_not_accepted():
    acceptance = Acceptance(tuple(b"abcz"), 3, (0, 1, 4))
    step = told_step(Step(0, TREE), acceptance, committed=2, plan=PLAN, vocab=TARGET_VOCAB)
    assert (step.accepted_tokens, step.rejected) == (2, b"")


def test_a_step_without_drafts():
    step = told_step(Step(0, CandidateTree()), Acceptance((7,), 0), committed=1, plan=PLAN, vocab=TARGET_VOCAB)
    assert (step.draft_tokens, step.positions, step.rejected) == (0, 0, b"")
