"""The plain values of the core: what cannot be changed, what is left out, and what they refuse."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil

import pytest

import speculation
from speculation.errors import InputError
from speculation.protocol.generation import (
    Chunk,
    Finished,
    FinishReason,
    GenerationRequest,
    SourceStats,
    SpeculationStats,
    Started,
)
from speculation.protocol.messages import ChatMessage, Prompt, SessionOffer, Span, SpeculationPlan, Verdict
from speculation.protocol.prefix import prefix_digest
from speculation.protocol.proposal import MAX_PAIRS, MAX_WEIGHT, Proposal, propose
from speculation.protocol.session_request import SessionRequest
from speculation.sampling.params import Rule, SamplingParams
from speculation.sessions.drafter_session import DraftToken, Move
from speculation.sessions.instructions import Finish
from speculation.sessions.statistics import SessionStats, SourceCounts
from speculation.source import DRAFTER, Source, SourceKind
from speculation.text.text_stream import TextRun

#: What is counted in or built up.
CHANGING = {"Completion", "SessionStats", "SourceCounts", "TreeNode", "Voice", "_Tree"}
#: Told apart by identity, or with an equality of their own.
OWN_EQUALITY = {"ByteVocab", "Source", "TreeNode"}


def dataclasses_of_the_core() -> list[type]:
    modules = [
        importlib.import_module(found.name) for found in pkgutil.walk_packages(speculation.__path__, "speculation.")
    ]
    return [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and dataclasses.is_dataclass(value) and value.__module__ == module.__name__
    ]


def test_values_cannot_be_changed():
    found = dataclasses_of_the_core()
    assert len(found) > 30
    assert {kind.__name__ for kind in found if not kind.__dataclass_params__.frozen} == CHANGING
    assert {kind.__name__ for kind in found if not kind.__dataclass_params__.eq} == OWN_EQUALITY


def test_sources_are_told_apart_by_identity():
    assert Source(SourceKind.DRAFTER) != DRAFTER and len({Source(SourceKind.DRAFTER), DRAFTER}) == 2
    assert [kind.value for kind in SourceKind] == [0, 1, 2, 3, 4, 5], "these travel"


def test_what_a_message_leaves_out_is_nothing():
    prompt, plan = Prompt("x"), SpeculationPlan()
    assert plan == SpeculationPlan(8, 8, 0.3, 4, 0.0, 0, 0.9, 0.0, 0)
    assert Span(3, 5, b"x") == Span(3, 5, b"x", False, 0, 0, False, 1.0, (), 0, DRAFTER)
    assert Verdict(3, b"x", 5) == Verdict(3, b"x", 5, 0, 0, 0, None)
    offer = SessionOffer("s", prompt, SamplingParams(), Rule.RACE, b"", 0, plan)
    assert offer == SessionOffer("s", prompt, SamplingParams(), Rule.RACE, b"", 0, plan, 0, "")
    assert DraftToken(b"x") == DraftToken(b"x", 1.0, False, False, 0, None)
    assert Move((1,)) == Move((1,), 0, None)
    assert SamplingParams() == SamplingParams(0.0, 0, 1.0, 0.0, 1.0, 0.0, 0.0, {}, 0)


def test_what_a_request_or_an_answer_leaves_out_is_nothing():
    prompt = Prompt("x")
    neutral = GenerationRequest(prompt, SamplingParams(), 0, (), Rule.RACE, True, False, b"", b"")
    assert GenerationRequest(prompt) == neutral
    assert Started("s", 3) == Started("s", 3, 0, 0, "", "", "", None)
    stats = SpeculationStats(0, 0, 0, 0, 0, 0, 0, (), 0.0, 0.0, (), Rule.RACE, (), None)
    assert SpeculationStats() == stats
    assert SourceStats(SourceKind.LOOKUP) == SourceStats(SourceKind.LOOKUP, "", "", "", 0, 0)
    assert Finished(FinishReason.STOP, 3, 4) == Finished(FinishReason.STOP, 3, 4, stats, None, 0)
    request = SessionRequest((1,), SamplingParams(), 1, 10)
    assert request == SessionRequest((1,), SamplingParams(), 1, 10, (), Rule.RACE, False, b"")
    assert Finish(FinishReason.STOP) == Finish(FinishReason.STOP, None)
    assert SessionStats() == SessionStats(0, 0, 0, 0, 0, 0, 0, [], {}) and SourceCounts() == SourceCounts(0, 0)


def test_figures_of_an_answer():
    assert SourceStats(SourceKind.DRAFTER, draft_tokens=4, accepted_tokens=1).acceptance_rate == 0.25
    assert SourceStats(SourceKind.DRAFTER).acceptance_rate is None
    chunk = Chunk((TextRun("猫".encode(), False), TextRun("犬".encode()[:2], True)), (1, 2))
    assert chunk.data == "猫犬".encode()[:5] and chunk.text == "猫\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    "field, least, most",
    [
        ("width", 0, 256),
        ("lookahead", 0, 256),
        ("span_tokens", 1, 256),
        ("alternatives", 0, 8),
        ("top_k", 0, MAX_PAIRS),
        ("patience", 0.0, 10.0),
        ("stop_threshold", 0.0, 1.0),
        ("alternative_threshold", 0.0, 1.0),
        ("verify_threshold", 0.0, 1.0),
    ],
)
def test_a_plan_takes_what_lies_within_its_bounds(field: str, least: float, most: float):
    for value in (least, most):
        assert getattr(SpeculationPlan(**{field: value}), field) == value  # type: ignore[arg-type]
    past = (least - 1, most + 1) if isinstance(least, int) else (least - 1e-9, most + 1e-9, float("nan"))
    for value in past:
        with pytest.raises(InputError, match=field):
            SpeculationPlan(**{field: value})  # type: ignore[arg-type]


def test_prompts_are_a_text_or_a_conversation():
    turns = (ChatMessage("user", "hello"),)
    assert Prompt("x").messages == () and Prompt(messages=turns).text is None
    for text, messages, wrong in (
        (None, (), "is empty"),
        ("", (), "at least one character"),
        ("x", turns, "messages as well"),
        ("\ud800", (), "prompt.*UTF-8 at character 0"),
        (None, (ChatMessage("user", "x\ud800"),), "messages.content.*UTF-8 at character 1"),
        (None, (ChatMessage("robot", "x"),), "no role"),
        (None, (ChatMessage("", "x"),), "messages.role.*empty"),
    ):
        with pytest.raises(InputError, match=wrong):
            Prompt(text, messages)


def test_a_proposal_is_a_distribution_with_its_token_inside():
    assert Proposal(2, (0, 2), (1, MAX_WEIGHT)).total == MAX_WEIGHT + 1
    assert Proposal(2, (0, 2, 9), (1, 3, 4)).probability == 3 / 8
    assert Proposal(0, tuple(range(MAX_PAIRS)), (1,) * MAX_PAIRS).probability == 1 / MAX_PAIRS
    for token, ids, weights, wrong in (
        (0, (), (), "as many weights as ids"),
        (0, tuple(range(MAX_PAIRS + 1)), (1,) * (MAX_PAIRS + 1), "as many weights as ids"),
        (0, (0, 1), (1,), "as many weights as ids"),
        (1, (-1, 1), (1, 1), "ascend"),
        (1, (1, 1), (1, 1), "ascend"),
        (1, (2, 1), (1, 1), "ascend"),
        (1, (1,), (0,), r"lie in 1\.\."),
        (1, (1,), (MAX_WEIGHT + 1,), r"lie in 1\.\."),
        (1, (0, 2), (1, 1), "no weight"),
        (3, (0, 2), (1, 1), "no weight"),
    ):
        with pytest.raises(InputError, match=wrong):
            Proposal(token, ids, weights)


def test_a_wrong_proposal_shows_its_first_eight_numbers():
    with pytest.raises(InputError) as error:
        Proposal(1, tuple(range(9)), (0,) * 9)
    assert error.value.value == (0,) * 8
    with pytest.raises(InputError) as error:
        Proposal(1, (5, *range(9)), (1,) * 10)
    assert error.value.value == (5, *range(7))


def test_heads_of_prompts_are_equal_up_to_256_bytes():
    head = "x" * 255
    assert prefix_digest(Prompt(head + "a")) != prefix_digest(Prompt(head + "b"))
    assert prefix_digest(Prompt(head + "ab")) == prefix_digest(Prompt(head + "ac"))
    assert prefix_digest(Prompt("abc")) == 0xD8BB14D833D59559
    turns = ChatMessage("user", "a"), ChatMessage("user", "b")
    assert prefix_digest(Prompt(messages=turns)) == prefix_digest(Prompt("user\0a\0user\0b\0"))


def test_what_is_drawn_is_what_the_bits_point_at():
    q = {7: 0.25, 3: 0.5, 9: 0.25, 4: 1e-9}
    drawn = propose(q, 0)
    assert drawn == Proposal(3, (3, 7, 9), (2048, 1024, 1024)), "ascending, and without what vanishes"
    for bits, token in ((0, 3), (2**51 - 1, 3), (2**51, 7), (3 * 2**50 - 1, 7), (3 * 2**50, 9), (2**52 - 1, 9)):
        found = propose(q, bits)
        assert found is not None and found.token == token
    assert propose({1: 2.0, 2: 6.0}, 0) == Proposal(1, (1, 2), (1024, 3072)), "it need not add up to 1"
    assert propose({}, 0) is None and propose({1: 0.0}, 0) is None


def test_of_a_long_distribution_the_likeliest_are_kept():
    """Of equals those with the lowest ids."""
    q = {token: 1.0 for token in range(MAX_PAIRS + 10)} | {MAX_PAIRS + 5: 2.0}
    found = propose(q, 0)
    assert found is not None
    assert found.ids == (*range(MAX_PAIRS - 1), MAX_PAIRS + 5) and found.weights == (4,) * (MAX_PAIRS - 1) + (8,)


def test_a_session_needs_a_prompt_that_leaves_room():
    assert SessionRequest((1,) * 9, SamplingParams(), 1, 10).max_tokens == 1
    for changed, wrong in (
        ({"prompt_ids": ()}, "gives no tokens"),
        ({"prompt_ids": (1,) * 10}, "context length of 10"),
        ({"max_tokens": 0}, "at least 1"),
        ({"rule": Rule.AUTO}, "decided"),
        ({"rule": Rule.REJECTION, "received": b"x"}, "cannot be resumed"),
    ):
        with pytest.raises(InputError, match=wrong):
            dataclasses.replace(SessionRequest((1,), SamplingParams(), 1, 10), **changed)
    assert SessionRequest((1,), SamplingParams(), 1, 10, rule=Rule.EXACT, received=b"x").received == b"x"
