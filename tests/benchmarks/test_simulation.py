"""A recorded text in virtual time: with a drafter that says what was recorded, and with a real one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from benchmarks.recording import RecordedText
from benchmarks.replay_drafter import ReplayDrafter, WrongDrafter
from benchmarks.replay_target import ReplayEngine
from benchmarks.simulation import LiveDrafter, speed_up
from benchmarks.virtual_run import Speeds
from drafter_service.draft_source import Drafter, DraftSource
from speculation.planning.plan import START
from speculation.protocol.messages import Prompt, SessionOffer
from tests.support.tiny_models import load_tiny

TEXT = "The heron waits by the river and the fox waits by the road."


@pytest.fixture(scope="module")
def engine(tiny_llama: Path) -> ReplayEngine:
    """A target of which one text was recorded, and a drafter that had all of it right."""
    tokenizer = load_tiny(tiny_llama).tokenizer
    ids = tokenizer.encode(TEXT)
    tokens = [tokenizer.vocab.bytes_of(token).decode("latin-1") for token in ids]
    drafts = [[[(token, 0.9)] for token in tokens[start:]] for start in range(len(tokens))]
    recorded = RecordedText("heron", prompt_ids=ids[:3], token_ids=ids, tokens=tokens, drafts=drafts)
    return ReplayEngine([recorded], str(tiny_llama), step=0.0, step_per_token=0.0)


def gained(engine: ReplayEngine, drafter: Drafter, *, round_trip: float = 0.0, span: float = 0.0) -> float:
    speeds = Speeds(step=0.02, step_per_token=0.0, token=0.001, row=0.0, round_trip=round_trip, span=span)
    return speed_up(engine, drafter, 0, speeds, START, lookup=False)


def test_distance_and_spans_cost_what_they_are_said_to(engine: ReplayEngine):
    perfect = ReplayDrafter(engine.texts, token=0.0, row=0.0)
    near, far = gained(engine, perfect), gained(engine, perfect, round_trip=0.5)
    assert near > 3.0 and far == pytest.approx(1.0), "the text ends before the first draft comes"
    assert gained(engine, perfect, span=0.002) < near - 0.5
    assert gained(engine, WrongDrafter(token=0.0, row=0.0)) == pytest.approx(1.0)


def test_plans_adapt_in_virtual_time_too(engine: ReplayEngine):
    perfect = ReplayDrafter(engine.texts, token=0.0, row=0.0)
    speeds = Speeds(step=0.2, step_per_token=0.0, token=0.01, row=0.0, round_trip=0.0)
    assert speed_up(engine, perfect, 0, speeds, None, lookup=False) > 2.0


class Asked:
    """A drafter that remembers what it was asked to draft for."""

    model_name, vocab_size, vocab_hash = "asked", 0, ""

    def __init__(self, drafter: Drafter) -> None:
        self._drafter = drafter
        self.prompts: list[Prompt] = []

    def open(self, offer: SessionOffer) -> DraftSource:
        self.prompts.append(offer.prompt)
        return self._drafter.open(dataclasses.replace(offer, prompt=Prompt(text="0")))

    def measure(self) -> float:
        return 0.001


def test_a_real_drafter_is_asked_for_the_prompt_itself(engine: ReplayEngine):
    asked = Asked(ReplayDrafter(engine.texts, token=0.0, row=0.0))
    live = LiveDrafter(asked, engine, [Prompt(text="a story: ")])
    assert gained(engine, live) > 3.0 and live.measure() == 0.001
    assert asked.prompts == [Prompt(text="a story: ")]
