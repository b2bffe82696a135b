"""Drafting from what the target nearly said, in a session: which candidates it has, and what it learns of each step."""

from __future__ import annotations

import pytest

from speculation.drafts.candidates import ROOT, CandidateTree
from speculation.drafts.recycled_tokens import KEPT, RecycledTokens
from speculation.drafts.recycling import GUIDED_WIDTH, Recycling
from speculation.protocol.messages import Span, SpeculationPlan
from speculation.protocol.session_request import SessionRequest
from speculation.sampling.params import SamplingParams
from speculation.sessions.target_session import TargetSession
from speculation.source import LOOKUP, RECYCLED, SourceKind
from speculation.text.digest import EMPTY_DIGEST
from speculation.verification.step import Acceptance
from tests.support.listed_guide import ListedGuide
from tests.support.recycled import known
from tests.support.text_models import TARGET_VOCAB

[END] = TARGET_VOCAB.end_ids
PAUSE = END - 1  # a token without bytes
OFF = SpeculationPlan(width=0, lookahead=0)


def session(tokens: RecycledTokens, *, width: int = 0, temperature: float = 0.0, **options) -> TargetSession:
    asked = SessionRequest(
        prompt_ids=tuple(options.pop("prompt", b"xab")),
        sampling=SamplingParams(temperature=temperature, seed=1),
        max_tokens=options.pop("max_tokens", 40),
        context_length=100,
        ignore_end=options.pop("ignore_end", False),
    )
    recycling = Recycling.of(asked, TARGET_VOCAB, tokens, width=width)
    plan = options.pop("plan", OFF)
    return TargetSession(
        asked, TARGET_VOCAB, lambda text: list(text.encode()), plan=plan, recycling=recycling, **options
    )


def paths(tree: CandidateTree) -> list[bytes]:
    """The text up to each candidate."""
    return [bytes(tree.tokens[node] for node in tree.path(number)) for number in range(len(tree))]


def test_a_session_drafts_what_it_knows_and_learns_of_each_row():
    tokens = known((b"xab", b"c"), (b"abc", b"d"))
    target = session(tokens)
    assert target.recycles
    step = target.next_step()
    assert paths(step.candidates) == [b"c", b"cd"]
    assert {source.kind for source in step.candidates.sources} == {SourceKind.RECYCLED}
    target.on_acceptance(Acceptance((ord("c"), ord("q")), 1, (0,)))
    target.on_best([list(b"cC"), list(b"qQ"), list(b"zZ")])  # after b, c, and d, which was rejected
    for context, best in ((b"xab", b"cC"), (b"abc", b"qQ"), (b"bcd", b"zZ"), (b"d", b"zZ"), (b"bc", b"qQ")):
        assert tokens.after(tuple(context))[0] == tuple(best), context
    assert tokens.after(tuple(b"bcq"))[0] == (), "no row was run behind it yet"
    assert target.stats.accepted_tokens == 1


def test_of_some_rows_only_these_are_heard():
    tokens = known((b"xab", b"cd"))
    target = session(tokens)
    target.next_step()
    target.on_acceptance(Acceptance((ord("d"), ord("e")), 1, (1,)))
    target.on_best([list(b"d"), list(b"e")], (0, 2))
    assert tokens.after(tuple(b"abd"))[0] == tuple(b"e") and tokens.after(tuple(b"abc"))[0] == ()


def test_one_text_learns_of_another_that_has_the_same_tokens():
    tokens = RecycledTokens()
    first = session(tokens, prompt=b"xab")
    for came in b"cdef":
        first.next_step()
        first.on_acceptance(Acceptance((came,), 0))
        first.on_best([[came]])
    second = session(tokens, prompt=b"yab")
    assert paths(second.next_step().candidates) == [b"c", b"cd", b"cde", b"cdef"]
    assert not session(RecycledTokens(), prompt=b"yab").next_step().candidates


@pytest.mark.parametrize(("width", "planned", "free", "expected"), [(0, 0, 0, 7), (0, 5, 0, 5), (20, 5, 63, 20)])
def test_how_many_a_step_has(width: int, planned: int, free: int, expected: int):
    letters = bytes(range(97, 97 + KEPT))
    tokens = known(
        *[(bytes([*two, letter]), letters) for letter in letters for two in (b"xa", b"ab", b"bb", b"ba", b"aa")]
    )
    plan = SpeculationPlan(width=planned, lookahead=planned, verify_threshold=0.0)
    target = session(tokens, width=width, plan=plan, free=free)
    assert len(target.next_step().candidates) == expected
    assert len(target.next_step(share=3).candidates) == min(expected, 6), "twice a session's share, to be narrowed"
    assert len(session(tokens, width=width, plan=plan, free=free, max_tokens=3).next_step().candidates) == 2


def test_candidates_that_cost_something_are_weighed_like_all_others():
    tokens = known((b"b", b"cd"))
    plan = SpeculationPlan(width=8, lookahead=8, verify_threshold=0.2)
    assert paths(session(tokens, plan=plan).next_step().candidates) == [b"c"]
    assert paths(session(tokens, plan=plan, width=8, free=8).next_step().candidates) == [b"c", b"d"]
    anything = SpeculationPlan(width=8, lookahead=8, verify_threshold=0.0)
    assert paths(session(tokens, plan=anything).next_step().candidates) == [b"c"], "whatever the plan was made for"


def test_beside_a_drafter_and_a_lookup():
    tokens = known((b"b", b"cz"), (b"bc", b"d"), (b"bq", b"r"))
    target = session(tokens, width=9, prompt=b"ab", plan=SpeculationPlan(width=4, lookahead=4), free=9)
    target.on_span(Span(0, EMPTY_DIGEST, b"q", confidence=0.8))
    tree = target.next_step().candidates
    found = {path: source.kind for path, source in zip(paths(tree), tree.sources, strict=True)}
    assert found[b"q"] is SourceKind.DRAFTER and found[b"qr"] is SourceKind.RECYCLED, "behind it, too"
    assert {b"c", b"z", b"cd"} <= found.keys()
    assert [paths(tree)[node] for node in tree.first_choices] == [b"q"]
    looking = session(known((b"end.", b"x")), prompt=b"the end. the end", lookup=True)
    tree = looking.next_step().candidates
    found = dict(zip(paths(tree), tree.sources, strict=True))
    assert found[b"."] is found[b". t"] is LOOKUP and found[b".x"] is RECYCLED


@pytest.mark.parametrize(
    ("least", "looked_up", "recycled"), [(0.0, True, b"cde"), (0.1, True, b"c"), (0.18, False, b"")]
)
def test_where_others_wait_a_candidate_has_to_be_worth_it_and_looking_for_some_too(
    least: float, looked_up: bool, recycled: bytes
):
    tokens = known((b"b", b"cd"), (b"c", b"e"))
    target = session(tokens, width=40, free=40, prompt=b"the end. b the end. b", lookup=True)
    tree = target.next_step(least=least).candidates
    kinds = dict(zip(tree.tokens, tree.sources, strict=True))
    assert bytes(sorted(token for token, source in kinds.items() if source is RECYCLED)) == recycled
    assert (LOOKUP in kinds.values()) == looked_up
    sent = session(tokens, width=9, free=9, plan=SpeculationPlan(width=4, lookahead=4))
    sent.on_span(Span(0, EMPTY_DIGEST, b"q", confidence=0.1))
    assert b"q" in paths(sent.next_step(least=least).candidates), "what drafters sent is verified all the same"


def test_what_spells_nothing_is_no_candidate_and_the_end_only_where_a_text_may_end():
    tokens = RecycledTokens()
    tokens.hear(tuple(b"xab"), [PAUSE, END, ord("c")])
    assert session(tokens, width=9, free=9).next_step().candidates.tokens == (END, ord("c"))
    assert session(tokens, width=9, free=9, ignore_end=True).next_step().candidates.tokens == (ord("c"),)


def test_nothing_comes_behind_an_end_and_nothing_is_learned_there():
    def of_two() -> RecycledTokens:
        tokens = RecycledTokens()
        tokens.hear(tuple(b"xab"), [END])
        tokens.hear((END,), list(b"z"))
        return tokens

    tokens = of_two()
    target = session(tokens, width=9, free=9)
    assert target.next_step().candidates.tokens == (END,)
    target.on_acceptance(Acceptance((ord("q"),), 0))
    target.on_best([list(b"q"), list(b"y")])
    assert tokens.after((END,))[0] == tokens.after((*b"ab", END))[0] == tuple(b"z")
    assert tokens.after(tuple(b"xab"))[0] == tuple(b"q")
    assert not session(of_two(), width=9, free=9, ignore_end=True).next_step().candidates, "it spells nothing"


def test_a_guide_allows_what_fits_it_and_few_are_tried():
    letters = bytes(range(97, 97 + KEPT))
    tokens = known(*[(bytes([letter]), letters) for letter in letters])
    target = session(tokens, width=40, prompt=b"a", guide=ListedGuide(TARGET_VOCAB, [b"abc"]), jumps=False, free=40)
    tree = target.next_step().candidates
    assert paths(tree) and all(b"abc".startswith(path) for path in paths(tree)) and len(tree) <= GUIDED_WIDTH


def test_a_text_that_is_written_again_teaches_too():
    tokens = RecycledTokens()
    asked = SessionRequest(
        prompt_ids=tuple(b"xab"), sampling=SamplingParams(), max_tokens=40, context_length=100, received=b"cde"
    )
    recycling = Recycling.of(asked, TARGET_VOCAB, tokens, width=0)
    target = TargetSession(asked, TARGET_VOCAB, lambda text: list(text.encode()), plan=OFF, recycling=recycling)
    step = target.next_step()
    assert paths(step.candidates) == [b"c", b"cd", b"cde"]
    target.on_acceptance(Acceptance(tuple(b"cdef"), 3, (0, 1, 2)))
    target.on_best([list(b"c"), list(b"d"), list(b"e"), list(b"f")])
    assert tokens.after(tuple(b"cde"))[0] == tuple(b"f") and tokens.after(tuple(b"abc"))[0] == tuple(b"d")


def test_steps_one_after_the_other_know_their_place():
    """A target that repeats its alphabet: from the second time on every step commits all that it may."""
    tokens, text = RecycledTokens(), bytes(range(97, 107)) * 4
    target = session(tokens, prompt=b"x", max_tokens=len(text))
    steps, at = 0, 0
    while at < len(text):
        tree = target.next_step().candidates
        node, path = ROOT, list[int]()
        for token in text[at:]:
            child = tree.child(node, token)
            if child is None:
                break
            path.append(node := child)
        committed = text[at : at + len(path) + 1]
        target.on_acceptance(Acceptance(tuple(committed), min(len(path), len(committed)), tuple(path)))
        best = []
        for row in range(len(tree) + 1):
            reached = text[:at] + bytes(tree.tokens[each] for each in (tree.path(row - 1) if row else ()))
            best.append([97 + (len(reached)) % 10])
        target.on_best(best)
        steps, at = steps + 1, at + len(committed)
    assert steps < len(text) / 2
    assert bytes(target.committed) == text
