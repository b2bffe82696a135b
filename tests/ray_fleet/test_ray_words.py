"""What `dragoman fleet` says to people: its table of actors in a narrow terminal, and its notes. No Ray is needed."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from dragoman.ray_fleet.calls import Outcome
from dragoman.ray_fleet.commands import actor_table
from dragoman.ray_fleet.launcher import Launcher
from dragoman.ray_fleet.replicas import Replica
from dragoman.ray_fleet.standing import Standing
from tests.support.fleet_drawings import drawn


@pytest.mark.parametrize("width", [40, 80])
def test_a_narrow_terminal_has_every_character_of_state_and_model(width: int):
    model, why = "QWEN/QWEN-CODER-INSTRUCT-AWQ", "1234567 2345678 3456789 4567890 5678901 6789012"
    facts = {"settings": {"model": model}, "serving": True, "address": "gpu-box-in-the-cellar:port"}
    found = [Standing("qwen", "verifier", Outcome.ANSWERED, facts), Standing("edge", "drafter", Outcome.GONE, why=why)]
    lines = drawn(actor_table(found, width=width), width)
    text = "".join(lines)
    assert "…" not in text and max(map(len, lines)) <= width
    assert "".join(letter for letter in text if letter.isupper()) == re.sub(r"\W", "", model)
    assert "".join(letter for letter in text if letter.isdigit()) == why.replace(" ", "")
    assert "serving" in text and "dead:" in text


@pytest.mark.parametrize(
    ("kind", "number", "words"),
    [
        ("gateway", 1, "broke 1 text off"),
        ("gateway", 2, "broke 2 texts off"),
        ("verifier", 1, "handed 1 session over"),
        ("verifier", 3, "handed 3 sessions over"),
    ],
)
def test_who_leaves_says_what_became_of_its_texts(kind: str, number: int, words: str):
    notes: list[str] = []
    remote = SimpleNamespace(remote=lambda *arguments: number)
    ray: Any = SimpleNamespace(
        get_actor=lambda name, namespace: SimpleNamespace(drain=remote, stop=remote),
        get=lambda reference, timeout: reference,
        kill=lambda handle: None,
        exceptions=None,
    )
    Launcher(ray, note=notes.append).remove(Replica(kind, "group", 0), drain_seconds=0.0)
    assert notes == [f"group/0 {words}", "group/0 is gone"]
