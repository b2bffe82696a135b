"""What people see while a model is loaded."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from drafter_service.settings import DrafterSettings
from dragoman import loading, terminal
from dragoman.loading import load_drafter, load_target
from dragoman.terminal import progress_bar
from verifier_service.settings import VerifierSettings


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """By a command whose standard error is no terminal."""
    file = io.StringIO()
    console = Console(file=file, width=100)
    monkeypatch.setattr(terminal, "err", console)
    monkeypatch.setattr(loading, "err", console)
    monkeypatch.setattr(loading, "progress_bar", lambda: progress_bar(console))
    return file


def test_each_stage_is_a_line_where_nobody_watches(said: io.StringIO, tiny_llama: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("DRAGOMAN_HOME", str(tmp_path))  # where no self-test has left its result
    load_target(VerifierSettings(model=str(tiny_llama), device="cpu", dtype="float32", threads=1))
    lines = said.getvalue().splitlines()
    assert [line for line in lines if line.startswith("loading weights")] and all(
        line.endswith("...") for line in lines
    )
    assert [line for line in lines if line.startswith("self-test")]
    assert len(lines) == len(set(lines))
    said.truncate(0)
    load_drafter(DrafterSettings(model=str(tiny_llama), device="cpu", dtype="float32", threads=1))
    assert "loading weights" in said.getvalue()


def test_a_terminal_shows_the_stage_and_how_far_it_is():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100, legacy_windows=False)
    with progress_bar(console) as progress:
        progress("loading weights", 1, 4)
        progress("loading weights", 2, 4)
    assert "loading weights" in file.getvalue() and "50%" in file.getvalue()
