"""The branches of the pool: their order, their chances and their bounds, and the tokens that were drawn in it."""

from __future__ import annotations

import pytest

from speculation.drafts.draft_node import DraftNode, first_of
from speculation.drafts.draft_path import DraftPath
from speculation.drafts.draft_pool import DraftPool
from speculation.drafts.span_fate import SpanFate
from speculation.protocol.messages import Span
from speculation.protocol.proposal import Proposal
from speculation.source import DRAFTER, LOOKUP, PREDICTION, Source, SourceKind
from speculation.text.digest import EMPTY_DIGEST, extend_digest
from tests.support.draft_pools import ANN, BOB, after, paths, pool


def place(drafts: DraftPool, text: bytes) -> DraftNode:
    """The place in the pool behind ``text``."""
    found = drafts.root.follow(text)
    assert found is not None
    return found


def texts(drafts: DraftPool, limit: int = 99, **kwargs) -> list[bytes]:
    return [path.text for path in paths(drafts, limit, **kwargs)]


def test_who_comes_first_at_a_place():
    """By kind, by the drafter's own choice, by trust, by arrival."""
    drafts = pool(after(b"", b"z", LOOKUP), after(b"", b"p", PREDICTION), after(b"", b"second", alternative=1))
    assert texts(drafts)[0] == b"second"
    for span in (after(b"", b"first", BOB), after(b"", b"late")):
        drafts.add_span(span)
    assert texts(drafts)[0] == b"first"
    assert texts(drafts, trust={BOB: 0.9})[0] == b"late", "a source of which nothing is known is believed"
    assert texts(drafts, trust={BOB: 1.1})[0] == b"first" and texts(drafts, trust={ANN: 1.1})[0] == b"late"
    assert texts(drafts, trust={ANN: 0.0, BOB: 0.0})[0] == b"first"
    drafts.add_span(after(b"", b"l", BOB, alternative=1))
    assert texts(drafts, trust={BOB: 0.9})[0] == b"late"


def test_a_source_keeps_the_best_of_its_ranks_and_shares():
    node = DraftNode()
    assert node.hear(ANN, (1, 5), 0.5) == 1.0
    assert node.hear(ANN, (2, 6), 0.25) == 0.5, "the half of it is left to what follows"
    assert node.hear(ANN, (0, 7), 0.75) == 1.0
    assert (node.voices[ANN].rank, node.voices[ANN].share) == ((0, 7), 0.75)
    assert first_of(node.voices, {}) == ((SourceKind.DRAFTER, 0, -1.0, 7), ANN)
    node.hear_end(BOB, (1, 3))
    node.hear_end(BOB, (0, 9))
    node.hear_end(BOB, (2, 1))
    assert node.ends[BOB].rank == (0, 9)


def test_what_was_impossible_may_become_possible():
    drafts = pool(after(b"", b"a", confidence=0.0), after(b"", b"ab", confidence=0.0), after(b"", b"a", confidence=0.5))
    assert paths(drafts)[0].chances == (0.5, 0.5)


def test_a_byte_that_several_guess_is_as_likely_as_the_best_says():
    drafts = pool(after(b"", b"ab", confidence=0.5), after(b"", b"ac", BOB, confidence=0.25))
    [first, second] = paths(drafts)
    assert (first.text, first.chances, first.sources, first.turning_chance) == (b"ab", (0.5, 0.5), (ANN, ANN), 1.0)
    assert (second.text, second.chances, second.sources) == (b"ac", (0.5, 0.25), (ANN, BOB))
    assert second.turning_chance == 0.25
    [first, second] = paths(drafts, trust={ANN: 0.1, BOB: 1.2})
    assert (first.text, first.chances) == (b"ac", pytest.approx((0.3, 0.3)))
    assert (second.text, second.chances, second.sources) == (b"ab", pytest.approx((0.3, 0.05)), (BOB, ANN))


def test_a_word_is_worth_at_most_all_of_it():
    sure = pool(after(b"", b"a", confidence=1.0), after(b"", b"a", BOB, confidence=0.9))
    assert paths(sure, trust={ANN: 1.2, BOB: 1.2})[0].chances == (1.0,)
    [lone] = paths(pool(after(b"", b"a"), after(b"a", b"b", BOB, confidence=0.5)), trust={ANN: 1.2, BOB: 1.2})
    assert lone.chances == (1.0, 0.5), "who continues others is believed no more than they are"
    [unknown] = paths(pool(after(b"", b"ab", BOB, confidence=0.5)))
    assert unknown.chances == (0.5, 0.5)


def test_branches_come_the_likeliest_turn_first():
    drafts = pool(
        after(b"", b"abc", confidence=0.5),
        after(b"", b"x", confidence=0.1, alternative=1),
        after(b"", b"y", confidence=0.2, alternative=2),
        after(b"ab", b"z", confidence=0.5, alternative=1),
        after(b"", b"never", confidence=0.0, alternative=3),
    )
    found = paths(drafts)
    assert [path.text for path in found] == [b"abc", b"abz", b"y", b"x"]
    assert [path.turning_chance for path in found] == [1.0, 0.25, 0.2, 0.1]
    assert [path.chances for path in found] == [(0.5, 0.5, 0.5), (0.5, 0.5, 0.25), (0.2,), (0.1,)]


def test_of_equally_likely_turns_the_first_met_comes_first():
    drafts = pool(*(after(b"", text, confidence=0.5, alternative=n) for n, text in enumerate((b"a", b"z", b"m"))))
    assert texts(drafts) == [b"a", b"z", b"m"]


@pytest.mark.parametrize(
    "limit, expected", [(1, [b"a"]), (2, [b"ab", b"ax"]), (3, [b"abc", b"ax"]), (9, [b"abcd", b"ax"])]
)
def test_branches_have_at_most_so_many_bytes(limit: int, expected: list[bytes]):
    drafts = pool(after(b"", b"abcd"), after(b"a", b"x", alternative=1, confidence=0.5))
    assert texts(drafts, limit) == expected


def test_after_a_place_only_what_follows_it():
    drafts = pool(after(b"", b"abcd"), after(b"a", b"x", alternative=1, confidence=0.5))
    assert texts(drafts, after=drafts.root.children[ord("a")]) == [b"bcd", b"x"]


def test_the_end_comes_in_the_order_of_all_guesses():
    """As a branch's last word, where no text precedes it."""
    drafts = pool(after(b"", b"ab", ends=True), after(b"ab", b"c", BOB))
    path, further = paths(drafts)
    assert (path.text, path.ends, path.ends_by, path.end_author) == (b"ab", True, ANN, ANN)
    assert (further.text, further.ends) == (b"abc", False)
    assert texts(drafts, trust={ANN: 0.5}) == [b"abc"] and not paths(drafts, trust={ANN: 0.5})[0].ends
    early = pool(after(b"", b"abc"), after(b"ab", b"", BOB, ends=True))
    assert (texts(early), paths(early)[0].ends, paths(early)[0].ends_by) == ([b"abc"], False, None)
    assert paths(early)[0].end_author is DRAFTER


def test_the_end_is_none_of_a_branch_that_stops_for_a_limit_or_a_drawn_token():
    drafts = pool(after(b"", b"abc"), after(b"ab", b"", BOB, ends=True))
    assert not paths(drafts, 2)[0].ends, "text precedes the end there"
    drafts = DraftPool()
    drafts.add_span(*span_of(b"", b"ab", b""))
    drafts.add_span(after(b"ab", b"", BOB, ends=True))
    assert place(drafts, b"ab").ends and not paths(drafts)[0].ends


def test_an_end_may_be_guessed_at_once():
    drafts = DraftPool()
    assert not drafts.has_draft and not drafts.has_sent
    assert drafts.add_span(after(b"", b"", ends=True)) is SpanFate.USED
    assert drafts.has_draft and drafts.has_sent and drafts.size == 0
    assert drafts.add_span(after(b"", b"", BOB, ends=True)) is SpanFate.KNOWN
    assert drafts.add_span(after(b"", b"")) is SpanFate.KNOWN
    [path] = paths(drafts)
    assert path.text == b"" and path.ends and path.ends_by is ANN


def test_what_is_looked_up_is_text_but_was_not_sent():
    drafts = pool(after(b"", b"ab", LOOKUP))
    assert drafts.has_draft and not drafts.has_sent
    drafts.add_span(after(b"", b"a", PREDICTION))
    assert drafts.has_sent
    drafts.clear()
    assert not drafts.has_draft and drafts.size == 0 and texts(drafts) == [b""]
    assert pool(after(b"", b"a", LOOKUP)).has_draft


def test_what_drafters_sent_ends_behind_their_last_byte():
    for sources, sent in (((), 0), ((LOOKUP,), 0), ((ANN, LOOKUP, BOB, LOOKUP, PREDICTION), 3), ((ANN,), 1)):
        assert DraftPath(b"x" * len(sources), False, sources=sources).sent == sent
    path = DraftPath(b"abc", False, sources=(ANN, BOB, LOOKUP))
    assert [path.author(end) for end in (1, 2, 3)] == [ANN, BOB, LOOKUP]
    assert DraftPath(b"abc", False).author(2) is DRAFTER and DraftPath(b"abc", False).turning_chance == 1.0


def test_guesses_are_the_first_bytes_by_the_word_of_one():
    drafts = pool(after(b"", b"ab", confidence=0.5), after(b"ab", b"cde", confidence=0.5))
    assert drafts.guesses(ANN) == {b"abcd": 0.25}
    assert drafts.guesses(BOB) == {}


def drawn(token: int = 1, ids: tuple[int, ...] = (1, 2)) -> Proposal:
    return Proposal(token, ids, (1,) * len(ids))


def span_of(
    before: bytes, *pieces: bytes, text: bytes = b"", source: Source = ANN, **kwargs
) -> tuple[Span, list[bytes]]:
    proposals = tuple(drawn() for _ in pieces)
    return after(before, b"".join(pieces) + text, source, proposals=proposals, **kwargs), list(pieces)


def test_drawn_tokens_stand_where_they_begin_and_end_a_branch():
    drafts = DraftPool()
    assert drafts.add_span(*span_of(b"", b"ab", b"c", text=b"de", confidence=0.5)) is SpanFate.USED
    root = drafts.root
    assert root.proposal == (drawn(), b"ab", ANN)
    second = drafts.after_drawn(root)
    assert second is not None and second.proposal == (drawn(), b"c", ANN)
    third = drafts.after_drawn(second)
    assert third is not None and third.proposal is None and drafts.after_drawn(third) is None
    [path] = paths(drafts)
    assert (path.text, path.drawn_at, path.ends) == (b"ab", second, False), "none across a drawn token"
    assert path.chances == (1.0, 1.0), "what was drawn has its own distribution"
    [path] = paths(drafts, after=second)
    assert (path.text, path.drawn_at, path.chances) == (b"cde", None, (1.0, 1.0, 1.0))
    assert [drafts.has_drawn(count) for count in range(4)] == [True] * 4, "text follows the second"


def test_so_many_drawn_tokens_are_there():
    drafts = DraftPool()
    assert drafts.has_drawn(0) and not drafts.has_drawn(1)
    drafts.add_span(*span_of(b"", b"a"))
    assert drafts.has_sent and drafts.has_drawn(1) and not drafts.has_drawn(2)
    drafts.add_span(after(b"a", b"", ends=True))
    assert drafts.has_drawn(2), "the end is behind it"
    bare = DraftPool()
    bare.add_span(*span_of(b"", b""))
    assert bare.has_sent and bare.has_draft and bare.size == 0
    assert bare.after_drawn(bare.root) is None and bare.has_drawn(1)
    assert bare.has_drawn(5), "a token without text has none behind it"


def test_the_first_token_drawn_at_a_place_stays():
    drafts = DraftPool()
    drafts.add_span(*span_of(b"", b"a"))
    assert drafts.add_span(*span_of(b"", b"b", source=BOB)) is SpanFate.USED, "its text is new"
    assert drafts.add_span(*span_of(b"", b"b", source=BOB)) is SpanFate.KNOWN
    assert drafts.root.proposal == (drawn(), b"a", ANN)


def test_a_token_drawn_at_a_decided_place_is_text_only():
    """The count of tokens without bytes says which place it is."""
    for told, used in ((1, False), (2, True)):
        drafts = DraftPool()
        drafts.advance(b"x", zero_width=2)
        drafts.add_span(*span_of(b"x", b"a", b"b", zero_width=told))
        assert (drafts.root.proposal is not None) is used
        assert drafts.root.children[ord("a")].proposal is not None, "beyond the committed end nothing is decided"


def test_a_late_span_is_used_from_the_token_that_is_still_ahead():
    drafts = DraftPool()
    drafts.advance(b"xab")
    drafts.add_span(*span_of(b"x", b"a", b"bc", b"d", zero_width=0))
    assert drafts.root.proposal is None and texts(drafts) == [b"c"]
    assert drafts.root.children[ord("c")].proposal == (drawn(), b"d", ANN)
    exactly = DraftPool()
    exactly.advance(b"xa")
    exactly.add_span(*span_of(b"x", b"a", b"b", zero_width=5))
    assert exactly.root.proposal == (drawn(), b"b", ANN), "the count is that of the span's beginning"
    decided = DraftPool()
    decided.advance(b"xa", zero_width=1)
    decided.add_span(*span_of(b"x", b"a", b"b"))
    assert decided.root.proposal is None


def test_a_place_is_decided_once_the_target_went_on_there():
    drafts = DraftPool()
    drafts.add_span(*span_of(b"", b"a", b"b"))
    drafts.advance(b"a")
    assert drafts.root.proposal is not None
    drafts.advance(b"", zero_width=1)
    assert drafts.root.proposal is None and texts(drafts) == [b"b"]
    assert drafts.add_span(*span_of(b"a", b"b", zero_width=0)) is SpanFate.KNOWN
    drafts.add_span(*span_of(b"a", b"b", zero_width=1))
    assert drafts.root.proposal is not None


def test_all_distributions_together_have_a_bound(monkeypatch: pytest.MonkeyPatch):
    assert DraftPool.MAX_PAIRS == 65536
    monkeypatch.setattr(DraftPool, "MAX_PAIRS", 4)
    drafts = DraftPool()
    drafts.add_span(*span_of(b"", b"a", b"b", b"c", b"d"))
    places, place = [], drafts.root
    for byte in b"abcd":
        places.append(place.proposal is not None)
        place = place.children[byte]
    assert places == [True, True, False, False]
    drafts.advance(b"a")
    drafts.add_span(*span_of(b"a", b"b", b"c", b"d"))
    assert drafts.root.children[ord("b")].proposal is not None, "what is committed makes room"
    assert drafts.root.children[ord("b")].children[ord("c")].proposal is None


def test_drawn_tokens_that_do_not_fit_are_left_out():
    drafts = DraftPool(capacity=2)
    assert drafts.add_span(*span_of(b"", b"ab", b"cd", b"e")) is SpanFate.FULL
    assert drafts.size == 2 and drafts.root.proposal is not None
    assert place(drafts, b"ab").proposal is not None


def test_spans_ahead_are_found_by_place_and_text_after_every_change():
    drafts = pool(after(b"", b"abcd"))
    assert drafts.add_span(Span(3, extend_digest(EMPTY_DIGEST, b"ab"), b"z")) is SpanFate.STALE
    drafts.advance(b"ab")
    assert drafts.size == 2
    assert drafts.add_span(after(b"abc", b"x")) is SpanFate.USED and drafts.size == 3
    assert drafts.add_span(after(b"abcd", b"")) is SpanFate.KNOWN
    drafts.clear()
    assert drafts.add_span(after(b"abc", b"x")) is SpanFate.STALE
    drafts.advance(b"zz")
    assert drafts.committed.since(0) == b"abzz" and drafts.add_span(after(b"abzz", b"x")) is SpanFate.USED
