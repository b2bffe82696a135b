"""What a target drafts by itself where a guide leaves it no choice, and drafts that the guide does not allow."""

from __future__ import annotations

from speculation.drafts.candidates import ROOT, CandidateTree
from speculation.drafts.draft_pool import DraftPool
from speculation.drafts.own_drafts import FORCED_WIDTH, LOOKUP_WIDTH, OwnDrafts
from speculation.guide import Forced
from speculation.protocol.messages import Span, SpeculationPlan
from speculation.protocol.session_request import SessionRequest
from speculation.sampling.params import SamplingParams
from speculation.sessions.target_session import TargetSession
from speculation.source import DRAFTER, GRAMMAR, LOOKUP
from speculation.text.digest import EMPTY_DIGEST
from speculation.verification.step import Acceptance
from tests.support.listed_guide import ListedGuide
from tests.support.text_models import TARGET_VOCAB, longest_words

END = TARGET_VOCAB.end_ids[0]
THE, CAT, SAT = 256, 257, 258
TEXTS = (b"the cat sat", b"the cat sat on the mat")


def guide_of(*texts: bytes, committed: tuple[int, ...] = ()) -> ListedGuide:
    guide = ListedGuide(TARGET_VOCAB, texts)
    for token in committed:
        guide.advance(token)
    return guide


def session(guide: ListedGuide, *, plan: SpeculationPlan | None = None, **settings: object) -> TargetSession:
    return TargetSession(
        SessionRequest((97,), SamplingParams(), 100, 4096),
        TARGET_VOCAB,
        longest_words(TARGET_VOCAB),
        plan=plan or SpeculationPlan(width=2),
        guide=guide,
        **settings,  # type: ignore[arg-type]
    )


def test_what_is_forced_is_drafted_whatever_the_plan():
    for width in (0, 2):
        step = session(guide_of(*TEXTS), plan=SpeculationPlan(width=width, lookahead=width)).next_step()
        assert step.candidates.tokens == (THE, CAT, SAT)
        assert step.candidates.sources == (GRAMMAR,) * 3 and step.candidates.first_choices == ()


def test_the_end_is_forced_where_one_text_alone_is_left():
    assert session(guide_of(TEXTS[0])).next_step().candidates.tokens == (THE, CAT, SAT, END)
    assert guide_of(*TEXTS).forced() == Forced(TEXTS[0]) and guide_of(TEXTS[0]).forced() == Forced(TEXTS[0], True)


def test_nothing_is_forced_without_jumps_or_a_guide():
    assert session(guide_of(*TEXTS), jumps=False).next_step().candidates == CandidateTree()
    own = OwnDrafts(None)
    assert own.forced() == Forced() and not own.guided
    assert OwnDrafts(None, guide=guide_of(*TEXTS)).guided
    assert own.width(3, Forced()) == 3 and own.width(0, Forced()) == 0


def test_how_many_a_step_wants():
    looking = OwnDrafts(b"x")
    assert looking.width(0, Forced()) == LOOKUP_WIDTH and looking.width(2, Forced()) == 2
    assert looking.width(2, Forced(b"abc")) == 3 and looking.width(5, Forced(b"abc")) == 5
    assert looking.width(2, Forced(b"a" * 99)) == FORCED_WIDTH == 16


def test_as_much_is_offered_as_a_step_can_take():
    own = OwnDrafts(None, guide=guide_of(b"a" * 99))
    pool = DraftPool()
    own.offer(pool, own.forced(), limit=2)
    [path] = pool.branches(limit=99)
    assert path.text == b"a" * 32 and not path.ends
    pool = DraftPool()
    own.offer(pool, Forced(b"a" * 32, True), limit=2)
    [path] = pool.branches(limit=99)
    assert path.text == b"a" * 32 and path.ends
    pool = DraftPool()
    own.offer(pool, Forced(), limit=2)
    assert not pool.has_draft


def test_nobody_sent_what_is_forced():
    """A step that waits for a drafter goes on waiting."""
    pool = DraftPool()
    pool.add_span(Span(0, EMPTY_DIGEST, b"abc", source=GRAMMAR))
    assert pool.has_draft and not pool.has_sent
    pool.add_words([(b"abd", 0.5)], LOOKUP)
    assert not pool.has_sent
    pool.add_span(Span(0, EMPTY_DIGEST, b"ab"))
    assert pool.has_sent


def test_drafts_that_are_not_allowed_are_not_verified():
    target = session(guide_of(*TEXTS), plan=SpeculationPlan(width=8, stop_threshold=0.0, verify_threshold=0.0))
    target.on_span(Span(0, EMPTY_DIGEST, b"the cat sat too", confidence=0.5))
    target.on_span(Span(0, EMPTY_DIGEST, b"dog", confidence=0.4, alternative=1))
    step = target.next_step()
    assert step.candidates.tokens == (THE, CAT, SAT)
    assert step.candidates.sources == (DRAFTER,) * 3, "whoever else guessed it comes first"
    assert step.candidates.first_choices == (0, 1, 2)
    target.on_acceptance(Acceptance((THE, CAT, SAT, 260), 3, (0, 1, 2)))
    assert target.stats.by_source[DRAFTER].accepted_tokens == 3


def test_a_tree_without_some_of_its_candidates():
    tree = CandidateTree((5, 6, 7, 8), (ROOT, 0, ROOT, 2), (0, 1), (DRAFTER, LOOKUP, GRAMMAR, DRAFTER))
    assert tree.kept([False, False, True, True]) == CandidateTree((7, 8), (ROOT, 0), (), (GRAMMAR, DRAFTER))
    assert tree.kept([True, False, True, True]) == CandidateTree(
        (5, 7, 8), (ROOT, ROOT, 1), (0,), (DRAFTER, GRAMMAR, DRAFTER)
    )
    own = OwnDrafts(None, guide=guide_of(b"the cat", b"dog"))
    mixed = CandidateTree((THE, SAT, 100, CAT, 111), (ROOT, 0, ROOT, 0, 2), (0, 1), (DRAFTER,) * 5)
    assert own.allowed(mixed).tokens == (THE, 100, CAT, 111) and own.allowed(mixed).parents == (ROOT, ROOT, 0, 1)
    dead = CandidateTree((SAT, 100), (ROOT, 0), (), (DRAFTER,) * 2)
    assert own.allowed(dead) == CandidateTree() and OwnDrafts(None).allowed(dead) is dead
    fine = CandidateTree.chain((THE, CAT))
    assert own.allowed(fine) is fine


def test_a_session_says_whether_it_is_guided():
    assert session(guide_of(*TEXTS)).guided
    assert not TargetSession(
        SessionRequest((97,), SamplingParams(), 9, 99),
        TARGET_VOCAB,
        longest_words(TARGET_VOCAB),
        plan=SpeculationPlan(),
    ).guided
