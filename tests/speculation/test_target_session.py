"""The target's side of a session, step by step: what is verified, what is kept, shown and told, and where it ends."""

from __future__ import annotations

import dataclasses

import pytest

from speculation.drafts.candidates import CandidateTree
from speculation.drafts.span_fate import SpanFate
from speculation.protocol.generation import FinishReason
from speculation.protocol.messages import Resync, Span, SpeculationPlan, Verdict
from speculation.protocol.proposal import Proposal
from speculation.protocol.session_request import SessionRequest
from speculation.sampling.params import Rule, SamplingParams
from speculation.sessions.instructions import Emit, Finish, Keep, SendVerdict
from speculation.sessions.target_session import TargetSession
from speculation.source import LOOKUP, PREDICTION, REPLAY, Source, SourceKind
from speculation.text.digest import EMPTY_DIGEST, extend_digest
from speculation.text.text_stream import TextRun
from speculation.verification.step import Acceptance
from tests.support.text_models import TARGET_VOCAB

[END] = TARGET_VOCAB.end_ids
PAUSE = END - 1
PLAN = SpeculationPlan(width=4, lookahead=8)


def ids(text: bytes) -> list[int]:
    return list(text)


def digest(text: bytes) -> int:
    return extend_digest(EMPTY_DIGEST, text)


def drafted(text: bytes) -> TextRun:
    return TextRun(text, True, SourceKind.DRAFTER)


def session(plan: SpeculationPlan = PLAN, encode=lambda text: list(text.encode()), **options) -> TargetSession:
    """Byte by byte, so that every token is one byte."""
    asked = {name: options.pop(name) for name in list(options) if name in SessionRequest.__dataclass_fields__}
    asked = {"prompt_ids": (1, 2), "sampling": SamplingParams(), "max_tokens": 20, "context_length": 64, **asked}
    return TargetSession(SessionRequest(**asked), TARGET_VOCAB, encode, plan=plan, **options)


def commit(target: TargetSession, tokens: list[int], accepted: int = 0) -> list:
    """A step that commits these tokens, of which the first so many candidates were accepted, a chain."""
    target.next_step()
    return target.on_acceptance(Acceptance(tuple(tokens), accepted, tuple(range(accepted))))


def sent(target: TargetSession, text: bytes, **kwargs) -> SpanFate:
    at = target.committed
    return target.on_span(Span(len(at), digest(at), text, **kwargs))


def spelled(tree: CandidateTree) -> bytes:
    assert tree.is_chain
    return TARGET_VOCAB.text(tree.tokens)


def test_a_step_keeps_shows_and_tells():
    target = session()
    sent(target, b"abc")
    step = target.next_step()
    assert (step.last, step.candidates, step.max_tokens) == (2, CandidateTree.chain(ids(b"abc")), 20)
    assert target.on_acceptance(Acceptance(tuple(b"abX"), 2, (0, 1))) == [
        Keep((0, 1, 2)),
        Emit(
            (*(TextRun(text, True, SourceKind.DRAFTER) for text in (b"a", b"b")), TextRun(b"X", False)), tuple(b"abX")
        ),
        SendVerdict(Verdict(0, b"abX", digest(b"abX"), 0, 3, 2)),
    ]
    assert target.next_step().last == ord("X") and target.next_step().max_tokens == 17
    assert (target.committed, target.committed_length, target.replayed_tokens) == (b"abX", 3, 0)
    assert commit(target, ids(b"Y"))[-1] == SendVerdict(Verdict(3, b"Y", digest(b"abXY")))


def test_a_branch_that_was_accepted_is_kept_row_by_row():
    target = session(plan=dataclasses.replace(PLAN, width=8))
    sent(target, b"ab", confidence=0.9)
    sent(target, b"cd", confidence=0.5, alternative=1)
    step = target.next_step()
    c = step.candidates.child(-1, ord("c"))
    assert c is not None
    d = step.candidates.child(c, ord("d"))
    assert d is not None
    keep, emit, _ = target.on_acceptance(Acceptance(tuple(b"cde"), 2, (c, d)))
    assert keep == Keep((0, 1 + c, 1 + d)) and isinstance(emit, Emit)
    assert [run.drafted for run in emit.runs] == [True, True, False]


def test_an_accepted_end_ends_the_text_and_takes_no_row():
    target = session()
    sent(target, b"a", ends=True)
    assert target.next_step().candidates.tokens == (ord("a"), END)
    assert target.on_acceptance(Acceptance((ord("a"), END), 2, (0, 1))) == [
        Keep((0, 1)),
        Emit((drafted(b"a"),), (ord("a"), END)),
        SendVerdict(Verdict(0, b"a", digest(b"a"), 1, 2, 2)),
        Finish(FinishReason.STOP, END),
    ]
    assert (target.finish_reason, target.stopped_by) == (FinishReason.STOP, END)


def test_what_stands_behind_the_end_is_not_committed():
    target = session()
    sent(target, b"ab")
    target.next_step()
    keep, emit, *_ = target.on_acceptance(Acceptance((ord("a"), END, ord("b")), 1, (0,)))
    assert keep == Keep((0, 1)) and isinstance(emit, Emit) and emit.token_ids == (ord("a"), END)
    assert target.token_ids == [ord("a"), END]


def test_an_end_that_is_ignored_is_a_token_without_text():
    target = session(ignore_end=True)
    sent(target, b"a", ends=True)
    assert target.next_step().candidates.tokens == (ord("a"),), "nor is it verified"
    target.on_acceptance(Acceptance((ord("a"), END), 1, (0,)))
    assert (target.finish_reason, target.zero_width, target.token_ids) == (None, 1, [ord("a"), END])
    [_, _, told] = commit(target, [END])
    assert told == SendVerdict(Verdict(1, b"", digest(b"a"), 2))
    assert commit(target, ids(b"b"))[-1] == SendVerdict(Verdict(1, b"b", digest(b"ab"), 0))


def test_tokens_without_text_are_counted_until_the_next_with_text():
    target = session()
    for token, count in ((PAUSE, 1), (PAUSE, 2), (ord("a"), 0), (PAUSE, 1)):
        commit(target, [token])
        assert target.zero_width == count
    assert target.on_resync(Resync(0)) == Verdict(0, b"a", digest(b"a"), 1, plan=target.plan)
    assert target.on_resync(Resync(1)) == Verdict(1, b"", digest(b"a"), 1, plan=target.plan)
    assert target.on_resync(Resync(2)) is None


@pytest.mark.parametrize("max_tokens, context, room", [(3, 64, 3), (20, 5, 3)])
def test_the_text_ends_with_its_tokens_or_the_context(max_tokens: int, context: int, room: int):
    target = session(max_tokens=max_tokens, context_length=context)
    sent(target, b"abcdef")
    step = target.next_step()
    assert step.max_tokens == room and spelled(step.candidates) == b"ab", "one of them is the target's own"
    instructions = target.on_acceptance(Acceptance(tuple(b"abc"), 2, (0, 1)))
    assert instructions[-1] == Finish(FinishReason.LENGTH) and target.stopped_by is None
    assert target.token_ids == ids(b"abc")


def test_the_end_on_the_last_token_is_a_stop():
    target = session(max_tokens=2)
    assert commit(target, [ord("a"), END])[-1] == Finish(FinishReason.STOP, END)


def test_a_stop_string_on_the_last_token_is_a_stop():
    target = session(max_tokens=3, stop=(b"bc",))
    sent(target, b"abc")
    _, emit, _, finish = commit(target, ids(b"abc"), 2)
    assert finish == Finish(FinishReason.STOP, b"bc") and target.stopped_by == b"bc"
    assert isinstance(emit, Emit) and emit.runs == (drafted(b"a"),)
    assert emit.token_ids == tuple(b"abc")


def test_what_was_held_back_for_a_stop_string_is_shown_at_the_end():
    target = session(max_tokens=2, stop=(b"bc",))
    _, emit, *_ = commit(target, ids(b"ab"))
    assert isinstance(emit, Emit) and [run.text for run in emit.runs] == [b"a", b"b"]


def test_a_step_is_as_wide_as_plan_and_engine_allow():
    for width, widest, expected in ((4, 256, b"abcd"), (4, 3, b"abc"), (1, 256, b"a"), (0, 256, b"")):
        target = session(plan=dataclasses.replace(PLAN, width=width), widest=widest)
        sent(target, b"abcdef")
        assert spelled(target.next_step().candidates) == expected


def test_candidates_that_cost_nothing_are_taken_however_unlikely():
    for free, expected in ((0, b""), (2, b"ab")):
        target = session(plan=dataclasses.replace(PLAN, verify_threshold=0.5), free=free)
        sent(target, b"abcd", confidence=0.4)
        assert spelled(target.next_step().candidates) == expected


def test_the_pool_holds_as_much_as_it_is_told():
    assert sent(target := session(pool_bytes=3), b"abcdef") is SpanFate.FULL
    assert spelled(target.next_step().candidates) == b"abc"
    assert [sent(session(), b"x" * size) for size in (4096, 4097)] == [SpanFate.USED, SpanFate.FULL]


def test_spans_are_counted():
    target = session()
    assert sent(target, b"a") is SpanFate.USED and sent(target, b"a") is SpanFate.KNOWN
    assert target.on_span(Span(0, 5, b"b")) is SpanFate.STALE
    assert (target.stats.spans, target.stats.stale_spans) == (3, 1)


def test_a_new_plan_is_told_once():
    target = session()
    wider = dataclasses.replace(PLAN, width=5)
    assert not target.follow(PLAN) and target.follow(wider) and not target.follow(wider)
    assert target.plan == wider
    assert [commit(target, ids(b"a"))[2].verdict.plan for _ in range(2)] == [wider, None]


def test_proposals_are_drafts_under_the_rules_that_take_them():
    drawn = Proposal(ord("a"), (ord("a"), ord("z")), (3, 1))
    for rule, proposals in ((Rule.REJECTION, (drawn, None)), (Rule.RACE, ())):
        target = session(rule=rule)
        assert sent(target, b"b" if rule is Rule.REJECTION else b"ab", proposals=(drawn,)) is SpanFate.USED
        step = target.next_step()
        assert spelled(step.candidates) == b"ab" and step.proposals == proposals


def test_a_step_waits_for_as_many_drawn_tokens_as_it_can_have():
    drawn = Proposal(ord("a"), (ord("a"),), (1,))
    waiting = dataclasses.replace(PLAN, span_tokens=2)
    for widest, ready in ((256, False), (1, True)):
        target = session(plan=waiting, rule=Rule.REJECTION, widest=widest)
        assert not target.ready and not target.has_draft
        sent(target, b"", proposals=(drawn,))
        assert target.has_draft and target.ready is ready
    assert session(plan=dataclasses.replace(PLAN, width=0)).ready


def test_looked_up_text_is_verified_without_a_drafter_and_without_a_plan():
    prompt = tuple(b"one two three four five six, one two")
    for plan, count in ((SpeculationPlan(width=0), 8), (SpeculationPlan(width=3), 3)):
        target = session(plan=plan, prompt_ids=prompt, lookup=True)
        tree = target.next_step().candidates
        assert spelled(tree) == b" three four five"[:count] and set(tree.sources) == {LOOKUP}
        assert not target.has_draft
    assert not len(session(plan=SpeculationPlan(width=0), prompt_ids=prompt).next_step().candidates)


def test_a_prediction_is_a_draft_that_follows_the_text():
    target = session(prediction=b"abcdefghij")
    tree = target.next_step().candidates
    assert spelled(tree) == b"abcd" and set(tree.sources) == {PREDICTION} and tree.first_choices == ()
    target.on_acceptance(Acceptance(tuple(b"ab"), 1, (0,)))
    assert spelled(target.next_step().candidates) == b"cdef"
    unlikely = session(plan=dataclasses.replace(PLAN, verify_threshold=0.91), prediction=b"abc")
    assert not len(unlikely.next_step().candidates)
    likely = session(plan=dataclasses.replace(PLAN, verify_threshold=0.9), prediction=b"abc")
    assert spelled(likely.next_step().candidates) == b"abc"


def test_whoever_is_wrong_is_believed_less():
    target = session(plan=dataclasses.replace(PLAN, verify_threshold=0.5))
    liar = Source(SourceKind.DRAFTER)
    verified = []
    for _ in range(6):
        sent(target, b"q", confidence=0.9, source=liar)
        verified.append(len(target.next_step().candidates))
        commit(target, ids(b"x"))
    assert verified == [1, 1, 1, 1, 0, 0], "4 / (4 + hits that were promised) of 0.9 falls below a half"


def test_what_was_received_is_verified_first_and_counted_apart():
    target = session(plan=dataclasses.replace(PLAN, width=0), received=b"abc", max_tokens=20)
    assert target.replaying
    step = target.next_step()
    assert spelled(step.candidates) == b"abc" and set(step.candidates.sources) == {REPLAY} and step.proposals == ()
    assert target.on_acceptance(Acceptance(tuple(b"abcd"), 3, (0, 1, 2))) == [
        Keep((0, 1, 2, 3)),
        Emit((TextRun(b"d", False),), tuple(b"abcd")),
        SendVerdict(Verdict(0, b"abcd", digest(b"abcd"), 0, 3, 3)),
    ]
    assert not target.replaying and target.replayed_tokens == 4
    assert (target.stats.steps, target.stats.draft_tokens) == (0, 0)
    assert target.stats.by_source[REPLAY].accepted_tokens == 3
    commit(target, ids(b"e"))
    assert target.replayed_tokens == 4 and target.stats.steps == 1


def test_a_replay_goes_in_steps_of_thirty_one_within_engine_and_room():
    for widest, max_tokens, width in ((256, 50, 31), (5, 50, 5), (256, 20, 19)):
        target = session(received=b"x" * 40, max_tokens=max_tokens, widest=widest)
        assert len(target.next_step().candidates) == width


def test_spelling_looks_back_on_eight_tokens_of_prompt_and_text():
    prompt = bytes(range(97, 123))
    target = session(prompt_ids=tuple(prompt), max_tokens=30)
    assert target.tail() == ids(prompt[-8:])
    commit(target, ids(b"AB"))
    assert target.tail() == ids(prompt[-6:] + b"AB")
    commit(target, ids(b"C" * 6))
    assert target.tail() == ids(b"AB" + b"C" * 6)
    commit(target, ids(b"D"))
    assert target.tail() == ids(b"B" + b"C" * 6 + b"D")


def test_a_new_verdict_is_awaited_with_the_word_of_drafters_forgotten():
    target = session(plan=dataclasses.replace(PLAN, span_tokens=2))
    assert not target.ready
    sent(target, b"", rests=True)
    assert target.ready
    sent(target, b"")
    assert target.ready, "one that goes on does not take it back"
    commit(target, ids(b"a"))
    assert not target.ready
