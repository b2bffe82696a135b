"""Which rule a request that leaves it open gets: from measured speed and bytes, pair by pair."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.sampling.params import Rule
from verifier_service.drafter_link import DrafterLink
from verifier_service.rule_choice import RETRY_EVERY, RuleChoice

MODEL = DrafterLink(pb.Hello(name="d", vocab_hash="abc"))
LOOKUP = DrafterLink(pb.Hello(name="l"))


def session(rule: Rule, *, drafted: int, seconds: float, wire_bytes: int, steps: int = 50) -> Any:
    stats = SimpleNamespace(draft_tokens=drafted, steps=steps)
    inner = SimpleNamespace(stats=stats, request=SimpleNamespace(rule=rule))
    figures = SimpleNamespace(decode_seconds=seconds, decode_tokens=99, bytes_up=wire_bytes, bytes_down=0)
    drafters = SimpleNamespace(vocabularies={"abc", ""})
    return SimpleNamespace(session=inner, drafters=drafters, figures=figures, new_tokens=100)


def choices(rejection: dict[str, Any], race: dict[str, Any]) -> list[Rule]:
    choice, taken = RuleChoice(), []
    for _ in range(3 * RETRY_EVERY):
        rule = choice.choose([LOOKUP, MODEL])
        taken.append(rule)
        choice.observe_session(session(rule, **(rejection if rule is Rule.REJECTION else race)))
    return taken


RACE = dict(drafted=100, seconds=10.0, wire_bytes=5_000)


@pytest.mark.parametrize(
    "rejection, best",
    [
        (dict(drafted=100, seconds=8.0, wire_bytes=40_000), Rule.REJECTION),
        (dict(drafted=900, seconds=9.9, wire_bytes=40_000), Rule.RACE),
        (dict(drafted=100, seconds=12.0, steps=25, wire_bytes=40_000), Rule.RACE),
        (dict(drafted=100, seconds=8.0, wire_bytes=200_000), Rule.RACE),
        (dict(drafted=0, seconds=10.0, wire_bytes=0), Rule.RACE),
    ],
    ids=["faster", "hardly faster", "slower in fewer steps", "too many bytes", "never drafts"],
)
def test_the_faster_rule_is_taken_once_both_are_tried(rejection: dict[str, Any], best: Rule):
    taken = choices(rejection, RACE)
    assert taken[:2] == [Rule.RACE, Rule.REJECTION]
    later = taken[RETRY_EVERY:]
    assert later.count(best) == len(later) - 2, "but for a retry now and then"


def test_without_a_model_that_drafts_it_is_the_race():
    choice = RuleChoice()
    assert {choice.choose([LOOKUP]) for _ in range(40)} == {choice.choose([])} == {Rule.RACE}


def test_a_rule_is_learned_where_not_every_drafter_serves_every_session():
    other = DrafterLink(pb.Hello(name="e", vocab_hash="def"))
    choice, taken = RuleChoice(), []
    for _ in range(RETRY_EVERY - 1):
        taken.append(choice.choose([MODEL, other]))
        seconds = 4.0 if taken[-1] is Rule.REJECTION else 5.0
        choice.observe_session(session(taken[-1], drafted=100, seconds=seconds, wire_bytes=5_000))
    assert taken == [Rule.RACE] + [Rule.REJECTION] * (RETRY_EVERY - 2)
