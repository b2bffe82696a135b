"""The drafter's side of a session, step by step: when it ships and rests, what spans say, what verdicts do."""

from __future__ import annotations

import pytest

from speculation.protocol.messages import Prompt, Resync, SessionOffer, Span, SpeculationPlan, Verdict
from speculation.protocol.proposal import Proposal
from speculation.sampling.params import Rule, SamplingParams
from speculation.sessions.drafter_session import LEAST_ALTERNATIVE, SPAN_BYTES, DrafterSession, DraftToken, Move
from speculation.text.digest import EMPTY_DIGEST, extend_digest


def digest(text: bytes) -> int:
    return extend_digest(EMPTY_DIGEST, text)


def session(rule: Rule = Rule.RACE, committed: bytes = b"", zero_width: int = 0, **plan) -> DrafterSession:
    followed = SpeculationPlan(**{"stop_threshold": 0.0, "span_tokens": 1, **plan})
    return DrafterSession(SessionOffer("s", Prompt(text="x"), SamplingParams(), rule, committed, zero_width, followed))


def word(text: bytes, confidence: float = 1.0, **kwargs) -> DraftToken:
    return DraftToken(text, confidence, token=text[0] if text else 0, **kwargs)


def draft(drafter: DrafterSession, *choices: DraftToken) -> list:
    """The model answers the likeliest leaf; the others stay asked."""
    return drafter.on_draft([(drafter.next_expansions()[0].number, choices)])


def verdict(before: bytes, text: bytes, zero_width: int = 0, plan: SpeculationPlan | None = None) -> Verdict:
    return Verdict(len(before), text, digest(before + text), zero_width, plan=plan)


def test_a_span_is_shipped_once_it_is_full():
    drafter = session(span_tokens=2)
    assert draft(drafter, word(b"ab", 0.5)) == []
    assert draft(drafter, word(b"cd", 0.5)) == [Span(0, EMPTY_DIGEST, b"abcd", tokens=2, confidence=0.25)]
    assert draft(drafter, word(b"e")) == []
    assert draft(drafter, word(b"f")) == [Span(4, digest(b"abcd"), b"ef", tokens=2)]
    assert drafter.wants_draft()


def test_long_tokens_do_not_wait_for_company():
    drafter = session(span_tokens=9)
    assert draft(drafter, word(b"x" * (SPAN_BYTES - 1))) == []
    [span] = draft(drafter, word(b"y"))
    assert len(span.text) == SPAN_BYTES == 256 and not span.rests


def test_it_rests_where_it_is_unsure_and_says_so_once():
    drafter = session(span_tokens=4, stop_threshold=0.5)
    assert draft(drafter, word(b"a", 0.5)) == [] and drafter.wants_draft(), "as sure as the threshold is sure enough"
    assert draft(drafter, word(b"b", 0.9)) == [Span(0, EMPTY_DIGEST, b"ab", tokens=2, confidence=0.45, rests=True)]
    assert not drafter.wants_draft() and drafter.next_expansions() == []
    assert drafter.on_verdict(verdict(b"", b"a")) == [Move((ord("a"),))]
    assert drafter.wants_draft(), "nearer by, it is sure enough again"


def test_it_rests_as_far_ahead_as_it_may_run():
    drafter = session(span_tokens=4, lookahead=2)
    assert draft(drafter, word(b"a")) == [] and drafter.wants_draft()
    assert draft(drafter, word(b"b")) == [Span(0, EMPTY_DIGEST, b"ab", tokens=2, rests=True)]
    assert not drafter.wants_draft()


def test_without_speculation_it_drafts_nothing():
    drafter = session(width=0)
    assert not drafter.wants_draft() and drafter.next_expansions() == []
    drafter.on_verdict(verdict(b"", b"a", plan=SpeculationPlan(width=1, span_tokens=3)))
    assert drafter.wants_draft() and drafter.plan == SpeculationPlan(width=1, span_tokens=3)


def test_a_leaf_is_asked_once():
    drafter = session()
    [asked] = drafter.next_expansions()
    assert asked.path == () and drafter.next_expansions() == [] and not drafter.wants_draft()
    drafter.on_draft([(asked.number, [word(b"a")])])
    assert [expansion.path for expansion in drafter.next_expansions()] == [(ord("a"),)]


def test_where_the_text_ends_nothing_more_comes():
    drafter = session(span_tokens=4)
    draft(drafter, word(b"ab", 0.5))
    [span] = draft(drafter, word(b"", 0.5, ends=True))
    assert span == Span(0, EMPTY_DIGEST, b"ab", ends=True, tokens=1, confidence=0.5, rests=True)
    assert not drafter.wants_draft()
    assert draft_end_alone() == Span(2, digest(b"ab"), b"", ends=True, rests=True)


def draft_end_alone() -> Span:
    """After all the text was shipped."""
    drafter = session()
    draft(drafter, word(b"ab"))
    [span] = draft(drafter, word(b"", ends=True))
    return span


def test_a_drafter_that_has_nothing_to_offer_says_that_it_rests():
    drafter = session()
    draft(drafter, word(b"ab"))
    assert draft(drafter, word(b"", stops=True)) == [Span(2, digest(b"ab"), b"", rests=True)]
    assert not drafter.wants_draft()


def test_alternatives_are_drafted_where_the_first_choice_is_not_sure():
    for sure, sent in ((0.8, [b"a"]), (0.79, [b"a", b"b", b"c"])):
        drafter = session(alternatives=2, alternative_threshold=0.8)
        spans = draft(drafter, word(b"a", sure), word(b"b", 0.1), word(b"c", 0.05), word(b"d", 0.05))
        assert [span.text for span in spans] == sent
        assert [span.alternative for span in spans] == list(range(len(sent)))
        assert [span.confidence for span in spans] == [sure, 0.1, 0.05][: len(sent)]
        assert len(drafter.next_expansions()) == len(sent)


def test_the_likeliest_leaves_are_continued_first():
    drafter = session(alternatives=1, alternative_threshold=1.0)
    draft(drafter, word(b"a", 0.4), word(b"b", 0.6))
    assert [expansion.path for expansion in drafter.next_expansions()] == [(ord("b"),), (ord("a"),)]
    drafter = session(alternatives=1, alternative_threshold=1.0)
    draft(drafter, word(b"a", 0.5), word(b"b", 0.5))
    assert [expansion.path for expansion in drafter.next_expansions()] == [(ord("a"),), (ord("b"),)]


def test_so_many_leaves_are_continued_at_once():
    drafter = session(alternatives=1, alternative_threshold=1.0)
    draft(drafter, word(b"a", 0.6), word(b"b", 0.4))
    for expansion in drafter.next_expansions():
        drafter.on_draft([(expansion.number, [word(b"c", 0.5), word(b"d", 0.4)])])
    assert [expansion.path for expansion in drafter.next_expansions()] == [tuple(b"ac"), tuple(b"ad")]


def test_an_alternative_below_the_threshold_is_no_part_of_the_draft():
    drafter = session(alternatives=2, alternative_threshold=1.0, stop_threshold=0.1)
    spans = draft(drafter, word(b"a", 0.05), word(b"b", 0.1), word(b"c", 0.09))
    assert [(span.text, span.rests) for span in spans] == [(b"a", True), (b"b", False)]
    assert [expansion.path for expansion in drafter.next_expansions()] == [(ord("b"),)]


def test_an_unlikely_alternative_waits_until_the_text_is_near():
    drafter = session(alternatives=1, alternative_threshold=1.0)
    assert len(draft(drafter, word(b"a", 0.1), word(b"z", LEAST_ALTERNATIVE))) == 2
    assert [span.text for span in draft(drafter, word(b"b", 0.9), word(b"c", 0.04))] == [b"b"]
    assert drafter.on_verdict(verdict(b"", b"a")) == [Move((ord("a"),))]
    spans = draft(drafter, word(b"d", 0.9))
    assert [(span.base_offset, span.text, span.alternative) for span in spans] == [(2, b"d", 0), (1, b"c", 1)]


def test_only_the_first_choice_rests():
    """The target awaits no alternatives."""
    drafter = session(alternatives=1, alternative_threshold=1.0, lookahead=1)
    spans = draft(drafter, word(b"a", 0.6), word(b"b", 0.4))
    assert [(span.text, span.rests, span.alternative) for span in spans] == [(b"a", True, 0), (b"b", False, 1)]


def test_an_end_beside_the_first_choice_is_told():
    drafter = session(alternatives=1, alternative_threshold=1.0)
    draft(drafter, word(b"a", 0.6), word(b"b", 0.4))
    first, second = drafter.next_expansions()
    assert drafter.on_draft([(second.number, [word(b"", ends=True)])]) == [
        Span(1, digest(b"b"), b"", ends=True, alternative=1)
    ]
    assert [span.text for span in drafter.on_draft([(first.number, [word(b"c")])])] == [b"c"], "and told once"


DRAWN = Proposal(5, (5, 9), (3, 1))


@pytest.mark.parametrize(
    "rule, answer, told",
    [
        (Rule.RACE, word(b"", ends=True), [Span(2, digest(b"ab"), b"", ends=True, rests=True)]),
        (Rule.RACE, word(b"", stops=True), []),
        (
            Rule.REJECTION,
            word(b"", ends=True, proposal=DRAWN),
            [Span(2, digest(b"ab"), b"", tokens=1, proposals=(DRAWN,), rests=True)],
        ),
    ],
)
def test_where_it_said_that_it_rests_only_news_are_told(rule: Rule, answer: DraftToken, told: list[Span]):
    drafter = session(rule, stop_threshold=0.5)
    draft(drafter, word(b"a", 0.5, proposal=DRAWN))
    assert draft(drafter, word(b"b", 0.9, proposal=DRAWN))[0].rests
    assert drafter.on_verdict(verdict(b"", b"a")) == [Move((ord("a"),))]
    assert draft(drafter, answer) == told


def test_drawn_tokens_travel_alone_with_their_distribution():
    drafter = session(Rule.REJECTION, span_tokens=4, zero_width=2)
    assert draft(drafter, word(b"a", 0.5, proposal=DRAWN)) == [
        Span(0, EMPTY_DIGEST, b"", tokens=1, confidence=0.5, proposals=(DRAWN,), zero_width=2)
    ]
    assert draft(drafter, word(b"b", 0.5, proposal=DRAWN)) == [
        Span(1, digest(b"a"), b"", tokens=1, confidence=0.5, proposals=(DRAWN,))
    ]


def test_a_drawn_end_is_a_proposal_and_no_guess():
    drafter = session(Rule.REJECTION)
    draft(drafter, word(b"a", proposal=DRAWN))
    end = word(b"", ends=True, proposal=DRAWN)
    assert draft(drafter, end) == [Span(1, digest(b"a"), b"", tokens=1, proposals=(DRAWN,), rests=True)]
    assert not drafter.wants_draft()


def test_under_a_rejection_rule_alternatives_are_sent_at_once_or_never():
    drafter = session(Rule.REJECTION, alternatives=2, alternative_threshold=1.0)
    first = word(b"a", 0.9, proposal=DRAWN)
    spans = draft(drafter, first, word(b"b", LEAST_ALTERNATIVE), word(b"c", LEAST_ALTERNATIVE * 0.99))
    assert [(span.text, span.alternative, span.proposals) for span in spans] == [(b"", 0, (DRAWN,)), (b"b", 1, ())]


@pytest.mark.parametrize("ending", range(4))
def test_in_which_order_drawn_tokens_are_sent_says_nothing_of_them(ending: int):
    """Two of the places are equally far from the first choices, and at one of the four the text ends."""
    drafter = session(Rule.REJECTION, alternatives=3, alternative_threshold=1.0, lookahead=8)
    others = [word(b"b", 0.2), word(b"c", 0.1)]
    draft(drafter, word(b"a", 0.6, proposal=DRAWN), *others)
    places = drafter.next_expansions()
    drafter.on_draft([(place.number, [word(b"d", 0.6, proposal=DRAWN), *others]) for place in places])
    places = drafter.next_expansions()
    drawn = [Proposal(number, (number,), (1,)) for number in range(4)]
    answers = [word(b"e", 0.6, proposal=proposal) for proposal in drawn]
    answers[ending] = word(b"", ends=True, proposal=drawn[ending])
    sent = drafter.on_draft([(place.number, [answer]) for place, answer in zip(places, answers, strict=True)])
    spans = [span for span in sent if isinstance(span, Span)]
    assert [proposal.token for span in spans for proposal in span.proposals] == [0, 1, 2, 3]


def test_a_batch_for_paths_that_were_all_left_says_nothing():
    drafter = session()
    [place] = drafter.next_expansions()
    drafter.on_verdict(verdict(b"", b"zz", plan=SpeculationPlan(width=0, lookahead=0)))
    assert drafter.on_draft([(place.number, [word(b"a")])]) == []


def test_what_is_drawn_behind_a_token_committed_in_part_is_used():
    drafter = session(Rule.REJECTION)
    draft(drafter, word(b"ab", proposal=DRAWN))
    assert drafter.on_verdict(verdict(b"", b"a")) == [] and drafter.committed_length == 1
    [span] = draft(drafter, word(b"c", proposal=DRAWN))
    assert span == Span(2, digest(b"ab"), b"", tokens=1, proposals=(DRAWN,))


def test_late_and_repeated_verdicts_change_nothing():
    drafter = session(committed=b"abc")
    assert drafter.on_verdict(verdict(b"", b"ab")) == []
    assert drafter.on_verdict(verdict(b"", b"abc")) == []
    assert drafter.on_verdict(Verdict(1, b"bc", 7)) == [Resync(3)], "of another text"
    assert drafter.committed_length == 3


def test_a_verdict_ahead_of_what_is_known_asks_for_the_rest():
    drafter = session(committed=b"abc")
    assert drafter.on_verdict(verdict(b"abcd", b"e")) == [Resync(3)]
    assert drafter.on_verdict(Verdict(3, b"d", 7)) == [Resync(3)]
    assert drafter.on_verdict(verdict(b"ab", b"cd")) == [Move((), 3, b"d")]
    assert drafter.committed_length == 4


def test_a_verdict_within_a_token_leaves_the_root_before_it():
    drafter = session(committed=b"x", zero_width=3)
    assert drafter.next_zero_width() == 3
    draft(drafter, word(b"abc", 0.9), word(b"q"))
    assert drafter.on_verdict(verdict(b"x", b"ab", zero_width=1)) == []
    assert (drafter.committed_length, drafter.zero_width, drafter.next_zero_width()) == (3, 1, 0)
    assert drafter.on_verdict(verdict(b"xab", b"cd")) == [Move((ord("a"),), 4, b"d")]
    assert drafter.next_zero_width() == drafter.zero_width == 0


def test_a_token_without_bytes_makes_the_draft_another_race():
    drafter = session()
    draft(drafter, word(b"ab"))
    draft(drafter, word(b"cd"))
    assert drafter.on_verdict(verdict(b"", b"ab", zero_width=1)) == [Move((ord("a"),), 2, b"")]
    assert drafter.next_expansions()[0].path == () and drafter.next_zero_width() == 1
    assert drafter.on_verdict(verdict(b"ab", b"", zero_width=1)) == [], "known"
    assert drafter.on_verdict(verdict(b"ab", b"", zero_width=3)) == [Move((), 2, b"")]
    assert drafter.on_verdict(verdict(b"ab", b"", zero_width=2)) == [] and drafter.zero_width == 3


@pytest.mark.parametrize("patience, told", [(0.0, []), (0.1, [Span(2, digest(b"ab"), b"", rests=True)])])
def test_a_patient_target_is_told_again_that_nothing_comes(patience: float, told: list[Span]):
    drafter = session(patience=patience)
    draft(drafter, word(b"ab"))
    assert drafter.on_verdict(verdict(b"", b"a")) == [], "while more may come nothing is said"
    draft(drafter, word(b"", stops=True))
    assert drafter.on_verdict(verdict(b"a", b"b")) == [Move((ord("a"),)), *told]


def test_a_draft_that_went_another_way_is_corrected():
    drafter = session(lookahead=1)
    draft(drafter, word(b"ab"))
    assert not drafter.wants_draft()
    assert drafter.on_verdict(verdict(b"", b"aX")) == [Move((), 0, b"aX")]
    assert drafter.wants_draft() and [expansion.path for expansion in drafter.next_expansions()] == [()]
