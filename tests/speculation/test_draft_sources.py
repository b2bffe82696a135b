"""Who drafted what: each source is counted, shown and believed by itself."""

from __future__ import annotations

import pytest

from speculation.drafts.candidates import CandidateBuilder, CandidateTree
from speculation.drafts.draft_pool import DraftPool
from speculation.protocol.messages import Span, SpeculationPlan
from speculation.sampling.params import Rule
from speculation.sessions.statistics import SessionStats, SourceCounts
from speculation.source import DRAFTER, LOOKUP, PREDICTION, REPLAY, Source, SourceKind
from speculation.text.digest import EMPTY_DIGEST, extend_digest
from speculation.text.text_stream import TextRun, TextStream
from tests.support.session_drivers import SAMPLINGS, Drafter, Target, plain_text, request
from tests.support.text_models import TARGET_VOCAB, longest_words

GREEDY = SAMPLINGS[0]
WHOLE = TARGET_VOCAB.text(plain_text(GREEDY, 200))
BUILDER = CandidateBuilder(TARGET_VOCAB, longest_words(TARGET_VOCAB), may_end=True)
ANN, BOB = Source(SourceKind.DRAFTER), Source(SourceKind.DRAFTER)


def after(before: bytes, text: bytes, source: Source, **kwargs) -> Span:
    return Span(len(before), extend_digest(EMPTY_DIGEST, before), text, source=source, **kwargs)


def candidates(*spans: Span, **kwargs) -> CandidateTree:
    pool = DraftPool()
    for span in spans:
        pool.add_span(span)
    return BUILDER.build(pool, [], width=16, threshold=0.0, **kwargs)


def by_text(tree: CandidateTree) -> dict[bytes, Source]:
    return {
        TARGET_VOCAB.text([tree.tokens[n] for n in tree.path(node)]): tree.sources[node] for node in range(len(tree))
    }


def test_a_token_counts_for_who_guessed_it_and_a_shared_one_for_the_drafter():
    looked_up = after(b"", b" cat sat", LOOKUP)
    assert set(candidates(looked_up).sources) == {LOOKUP}
    sources = by_text(candidates(looked_up, after(b"", b" cat on", ANN)))
    assert sources == {b" cat sat": LOOKUP, b" cat on": ANN, b" cat": ANN}
    sources = by_text(candidates(looked_up, after(b"", b" cat", PREDICTION)))
    assert sources == {b" cat": PREDICTION, b" cat sat": LOOKUP}
    two = after(b"", b" cat", BOB), after(b"", b" cat on", ANN)
    assert by_text(candidates(*two)) == {b" cat": BOB, b" cat on": ANN}, "of two drafters it is that of the first"
    assert by_text(candidates(*two, trust={BOB: 0.1}))[b" cat"] is ANN, "unless its word is worth less"


def test_the_guess_that_the_text_ends_has_a_source():
    tree = candidates(after(b"", b"the", LOOKUP), after(b"", b"the", ANN), after(b"the", b"", BOB, ends=True))
    assert tree.tokens[-1] in TARGET_VOCAB.end_ids
    assert tree.sources[-1] is BOB and set(tree.sources[:-1]) == {ANN}


def test_each_is_as_likely_as_the_source_that_is_believed_most():
    def chances(**trust: float) -> dict[bytes, float]:
        pool = DraftPool()
        pool.add_span(after(b"", b"ab", ANN, confidence=0.9))
        pool.add_span(after(b"", b"ac", BOB, confidence=0.5))
        pool.add_span(after(b"ac", b"d", ANN, confidence=0.5))  # who never guessed what comes before it
        words = {{"ann": ANN, "bob": BOB}[name]: worth for name, worth in trust.items()}
        return {path.text: path.chances[-1] for path in pool.branches(limit=9, trust=words)}

    assert chances() == pytest.approx({b"ab": 0.9, b"acd": 0.25})
    assert chances(ann=0.1) == pytest.approx({b"acd": 0.5 * 0.1 * 0.5, b"ab": 0.09})
    assert chances(bob=0.5) == pytest.approx({b"ab": 0.9, b"acd": 0.125})
    assert chances(ann=1.2, bob=1.2) == pytest.approx({b"ab": 1.0, b"acd": 0.3})


def test_the_word_of_each_source_is_told_apart():
    pool = DraftPool()
    pool.add_span(after(b"", b"abcdef", ANN, confidence=0.9))
    pool.add_span(after(b"", b"abx", BOB, confidence=0.5))
    pool.add_span(after(b"", b"y", BOB, confidence=0.25))
    pool.add_span(after(b"", b"z", BOB, confidence=0.0))
    pool.add_span(after(b"abcdef", b"g", BOB, confidence=0.7))
    assert pool.guesses(ANN) == pytest.approx({b"abcd": 0.9})
    assert pool.guesses(BOB) == pytest.approx({b"abx": 0.5, b"y": 0.25})
    assert pool.guesses(LOOKUP) == {}
    for number in range(20):
        pool.add_span(after(b"", bytes((number,)), LOOKUP, confidence=(20 - number) / 20))
    assert list(pool.guesses(LOOKUP)) == [bytes((number,)) for number in range(8)], "the eight likeliest"


def test_counts_are_apart_and_add_up():
    stats = SessionStats()
    tree = CandidateTree((7, 8, 9, 7), (-1, 0, 1, -1), (0, 1), (ANN, ANN, LOOKUP, BOB))
    stats.count_step(tree, (0, 1))
    stats.count_step(tree, (3,))
    stats.count_replay(CandidateTree.chain([5, 6], [REPLAY, REPLAY]), (0,))
    assert stats.by_source == {
        ANN: SourceCounts(4, 2),
        LOOKUP: SourceCounts(2, 0),
        BOB: SourceCounts(2, 1),
        REPLAY: SourceCounts(2, 1),
    }
    assert (stats.steps, stats.draft_tokens, stats.accepted_tokens) == (2, 8, 3), "the totals are without the replay"


def test_without_a_drafter_nothing_counts_as_a_drafters():
    target = Target(
        request(GREEDY, max_tokens=120, ignore_end=True, received=WHOLE[:20]),
        SpeculationPlan(),
        lookup=True,
        prediction=WHOLE[:60],
    )
    while not target.finished:
        target.step()
    stats = target.session.stats
    assert set(stats.by_source) == {LOOKUP, PREDICTION, REPLAY}
    assert stats.by_source[PREDICTION].accepted_tokens > 0
    replayed = stats.by_source[REPLAY]
    assert 0 < replayed.accepted_tokens <= min(target.session.replayed_tokens, replayed.draft_tokens)
    for figure in ("draft_tokens", "accepted_tokens"):
        apart = sum(getattr(stats.by_source[source], figure) for source in (LOOKUP, PREDICTION))
        assert apart == getattr(stats, figure)
    assert stats.first_choices == stats.accepted_first_choices == 0, "the plan of drafters rests on drafters"


@pytest.mark.parametrize("rule", Rule.concrete())
def test_all_draft_tokens_of_a_lone_drafter_are_its_own(rule: Rule):
    target = Target(request(GREEDY, max_tokens=60, rule=rule), SpeculationPlan(stop_threshold=0.0))
    drafter = Drafter(target.offer(GREEDY, rule))
    while not target.finished:
        while drafter.session.wants_draft():
            for message in drafter.draft():
                assert isinstance(message, Span)
                target.session.on_span(message)
        for verdict in target.step():
            drafter.on_verdict(verdict)
    stats = target.session.stats
    assert stats.by_source == {DRAFTER: SourceCounts(stats.draft_tokens, stats.accepted_tokens)}
    assert stats.accepted_tokens > 0


@pytest.mark.parametrize("liar_first", [True, False])
def test_a_lying_drafter_does_not_cost_an_honest_one_its_trust(liar_first: bool):
    plan = SpeculationPlan(width=4, verify_threshold=0.4)
    asked = request(GREEDY, max_tokens=60, ignore_end=True)
    alone = Target(asked, SpeculationPlan(width=0))
    while not alone.finished:
        alone.step()
    target, whole, lies = Target(asked, plan), alone.shown, 0
    while not target.finished:
        written = target.session.committed
        lie = after(written, b"qqq", ANN, confidence=1.0)
        truth = after(written, whole[len(written) :][:6], BOB, confidence=0.5)
        for span in (lie, truth) if liar_first else (truth, lie):
            target.session.on_span(span)
        tree = target.session.next_step().candidates
        lies += tree.sources.count(ANN)
        if len(target.session.token_ids) > 40:
            assert ANN not in tree.sources, "the liar is not verified any more"
            assert tree.first_choices or len(tree) == 0, "nor planned with"
        target.step()
    stats = target.session.stats
    assert 0 < stats.by_source[ANN].draft_tokens == lies
    assert stats.by_source[ANN].accepted_tokens == 0
    assert stats.by_source[BOB].accepted_tokens > stats.steps / 2, "the honest one is verified to the end"


def test_runs_say_whose_guess_the_bytes_were():
    stream = TextStream((b"stop",))
    shown = [
        *stream.push(b"ab", drafted=True, source=SourceKind.DRAFTER),
        *stream.push(b"st", drafted=True, source=SourceKind.LOOKUP),
        *stream.push(b"x", drafted=False),
        *stream.flush(),
    ]
    assert shown == [
        TextRun(b"ab", True, SourceKind.DRAFTER),
        TextRun(b"st", True, SourceKind.LOOKUP),
        TextRun(b"x", False),
    ]


def test_a_session_shows_whose_guess_its_bytes_were():
    target = Target(request(GREEDY, max_tokens=40), SpeculationPlan(), prediction=WHOLE[:30])
    runs = []
    while not target.finished:
        target.step()
        runs += target.runs
    assert {run.source for run in runs if run.drafted} == {SourceKind.PREDICTION}
    assert {run.source for run in runs if not run.drafted} == {None}
