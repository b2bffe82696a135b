"""The fleet at any width and height of a terminal: nothing of a value is lost, and what is not shown is counted."""

from __future__ import annotations

import html
import re
import string
from pathlib import Path

import pytest

from dragoman.fleet_view import away_line, fleet_view
from dragoman.models import show_models
from dragoman.record_table import record_table
from tests.support.fleet_drawings import a_fleet, drawn
from transport.address import Address

WIDTHS = [24, 40, 60, 80, 100, 120, 200]


@pytest.mark.parametrize("width", WIDTHS)
def test_every_character_of_a_cell_is_shown(width: int):
    names, models = string.ascii_lowercase * 2, string.ascii_uppercase * 2
    figures = ["12.5", "98765", "50%"]
    text = "\n".join(drawn(record_table(width, ("-", "+"), ("=", "~", "@"), [(names, models, *figures)]), width))
    assert "".join(letter for letter in text if letter.islower()) == names
    assert "".join(letter for letter in text if letter.isupper()) == models
    assert all(figure in text for figure in figures), "a figure is never broken"


@pytest.mark.parametrize("width", [40, 80])
def test_the_list_of_models_is_whole(width: int, monkeypatch, capsys, dragoman_home):
    monkeypatch.setenv("COLUMNS", str(width))
    show_models(everything=False)
    text = capsys.readouterr().out
    assert "…" not in text and all(word in text for word in ("qwen2.5-coder-1.5b", "151,936", "Apache-2.0", "not yet"))


def test_records_are_stacked_where_a_table_does_not_fit():
    rows = [("gpu-box", "Qwen/Qwen2.5-Coder-32B", "3/64", "123.4"), ("edge", "smollm2-135m", "1/4", "9.9")]
    shown = drawn(record_table(30, ("name", "model"), ("sessions", "tokens/s"), rows), 30)
    assert [line.rstrip() for line in shown] == [
        "name gpu-box",
        "  model Qwen/Qwen2.5-Coder-32B",
        "  sessions 3/64",
        "  tokens/s 123.4",
        "name edge",
        "  model smollm2-135m",
        "  sessions 1/4  tokens/s 9.9",
    ]
    assert "─" in drawn(record_table(60, ("name", "model"), ("sessions", "tokens/s"), rows), 60)[1]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_state_of_a_member_is_whole(width: int):
    fleet = a_fleet()
    fleet.members[0].verifier.draining = True
    text = "\n".join(drawn(fleet_view(fleet, width=width), width))
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    words = re.findall(r"\S+", text)
    assert "(draining)" in words and "!1" in words
    assert re.search(r"\(silent\s+(\S+\s+)*?for\s+(\S+\s+)*?2\s+(\S+\s+)*?s\)", text)
    for figure in ("98.7", "54321", "3.21", "50%", "80ms", "16/32 ×2", "1.84×", "123.4", "987654", "12.3 ms", "3/64"):
        assert figure in text


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("height", [26, 30, 40, 60, 100, 400])
def test_what_does_not_fit_is_counted(width: int, height: int):
    fleet = a_fleet(40)
    away = away_line(Address("10.0.0.9", 1), 12.0)
    text = drawn(fleet_view(fleet, width=width, height=height, away=away), width)
    assert len(text) <= height
    found = re.findall(r"\.\.\. and (\d+) more sessions?", "\n".join(text))
    shown = len(re.findall(r"\b000000[0-9a-f]{2}\b", "\n".join(text)))
    assert shown >= 1 and shown + sum(map(int, found)) == 40


def test_a_high_terminal_shows_all():
    whole = drawn(fleet_view(a_fleet(), width=80), 80)
    assert drawn(fleet_view(a_fleet(), width=80, height=len(whole)), 80) == whole


def test_members_go_after_sessions():
    fleet = a_fleet(1)
    for number in range(30):
        member = fleet.members.add(instance=f"d{number}x", name=f"edge-{number}", model="lookup", max_sessions=4)
        member.drafter.SetInParent()
    text = "\n".join(drawn(fleet_view(fleet, width=80, height=24), 80))
    assert len(text.splitlines()) <= 24
    assert (
        re.search(r"\.\.\. and \d+ more drafters", text) and "more session" not in text and "more verifier" not in text
    )


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_legend_says_what_the_w_of_a_plan_means(width: int):
    fleet = a_fleet()
    fleet.sessions[1].plan.patience = 0.5
    text = " ".join(" ".join(drawn(fleet_view(fleet, width=width), width)).split())
    assert "16/32 ×2 w" in text and "w: steps wait for drafts" in text


def test_the_picture_of_top_has_the_legend():
    """Else run python -m benchmarks.picture_of_top --output docs/top.svg."""
    picture = html.unescape((Path(__file__).resolve().parents[2] / "docs" / "top.svg").read_text("utf-8"))
    lines = " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", picture))
    assert "w: steps wait for drafts" in " ".join(lines.split())
