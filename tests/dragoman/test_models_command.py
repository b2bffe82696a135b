"""`dragoman models`: check, list, convert and remove, as a user meets them."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from dragoman import models
from dragoman.model_check import Checked, check_model, show
from language_models import conversions, weights
from tests.support.tiny_architectures import tiny_architecture
from tests.support.tiny_gguf import tiny_gguf

pytestmark = pytest.mark.process


@pytest.fixture
def gguf(tiny_qwen2: Path, tmp_path: Path) -> Path:
    return tiny_gguf(tiny_qwen2, tmp_path / "files" / "tiny.gguf")[0]


def dragoman(*arguments: str, answer: str | None = None) -> subprocess.CompletedProcess[str]:
    """The command, with ``answer`` typed at its terminal; None for no terminal."""
    command = [sys.executable, "-m", "dragoman", *arguments]
    if answer is None:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    controller, terminal = pty.openpty()
    try:
        os.write(controller, answer.encode())
        return subprocess.run(command, stdin=terminal, capture_output=True, text=True, timeout=300)
    finally:
        os.close(controller)
        os.close(terminal)


def listed(*, everything: bool, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    models.show_models(everything=everything, console=console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# ---- check


def test_check_says_what_serves_and_what_is_refused(tiny_llama: Path, tmp_path: Path, dragoman_home: Path):
    mamba = tiny_architecture("mamba", tmp_path / "mamba")
    done = dragoman("models", "check", str(tiny_llama), str(mamba), "nonsense", "--dtype=float32")
    assert done.returncode == 3 and "Traceback" not in done.stderr
    first, *rest = done.stdout.splitlines()
    assert first.startswith(f"{tiny_llama}: serves  llama, float32") and "context 512" in first
    assert rest[0] == f"{mamba}: refused" and "linear_attention" in rest[1]
    assert "nonsense: refused" in rest and rest[-1].startswith("  fix: ")
    assert dragoman("models", "check", str(tiny_llama), "--dtype=float32").returncode == 0


def test_check_in_json(tiny_llama: Path, tmp_path: Path, dragoman_home: Path):
    bert = tiny_architecture("bert", tmp_path / "bert")
    done = dragoman("models", "check", str(tiny_llama), str(bert), "--dtype=float32", "--json")
    assert done.returncode == 3
    good, bad = json.loads(done.stdout)["models"]
    assert good["model"] == str(tiny_llama) and good["target"] and good["drafter"] and good["reason"] == ""
    assert (good["model_type"], good["dtype"], good["context_length"]) == ("llama", "float32", 512)
    assert good["tokenizer_problems"] == []
    assert not bad["target"] and not bad["drafter"] and "cannot be served" in bad["reason"] and bad["remedy"]


def test_a_drafters_dtype_is_no_targets(tiny_llama: Path, dragoman_home: Path):
    checked = check_model(str(tiny_llama), dtype="int8", device="cpu")
    assert checked.drafter and not checked.target and not checked.refused and "int8" in checked.reason
    console = Console(file=io.StringIO(), width=40)
    show(checked, console)
    assert isinstance(console.file, io.StringIO)
    assert "serves as a drafter only" in console.file.getvalue()


def test_what_was_not_tried_is_said():
    console = Console(file=io.StringIO(), width=40)
    show(
        Checked(
            "m", True, True, vocabulary=9, context_length=9, unproven=["a window"], tokenizer_problems=["'[x]' comes"]
        ),
        console,
    )
    assert isinstance(console.file, io.StringIO)
    assert "not tried: a window\n" in console.file.getvalue()
    assert "its tokenizer is not exact: '[x]' comes\n" in console.file.getvalue(), "no markup in it"


def test_bad_options_are_no_refusal(tiny_llama: Path, dragoman_home: Path):
    done = dragoman("models", "check", str(tiny_llama), "--dtype=float7")
    assert done.returncode == 2 and "float7" in done.stderr and not done.stdout


# ---- list, convert, remove


def test_an_empty_cache_says_what_to_do(dragoman_home: Path):
    assert "not yet" in listed(everything=False) and ".gguf" not in listed(everything=False)
    assert "No .gguf file is converted yet" in listed(everything=True)
    done = dragoman("models", "remove", "tiny")
    assert done.returncode == 3 and "nothing is converted" in done.stderr and "Traceback" not in done.stderr


def test_converted_files_are_listed_with_source_and_size(gguf: Path, dragoman_home: Path):
    folder = Path(weights.resolve(str(gguf)).source)
    assert "one converted file more" in listed(everything=False)
    shown = listed(everything=True, width=300)
    assert str(dragoman_home) in shown.splitlines()[0]
    assert shown.splitlines()[-1].split() == [folder.name, str(gguf), "217", "kB"]
    narrow = listed(everything=True, width=40).partition("Converted files")[2]
    assert "217 kB" in narrow and max(map(len, narrow.splitlines())) <= 40


def test_converting_shows_each_stage_once(gguf: Path, dragoman_home: Path):
    done = dragoman("models", "convert", str(gguf))
    assert done.returncode == 0
    *stages, ready = done.stderr.splitlines()
    assert stages == ["checking ...", "converting ...", "noting digests ..."]
    assert ready.startswith("tiny is ready in ")
    again = dragoman("models", "convert", str(gguf)).stderr.splitlines()
    assert again == ["checking ...", "verifying ...", ready]


def test_remove_asks_on_a_terminal(gguf: Path, dragoman_home: Path):
    folder = Path(weights.resolve(str(gguf)).source)
    kept = dragoman("models", "remove", folder.name, answer="n\n")
    assert kept.returncode == 0 and f"Remove {folder.name} (217 kB)?" in kept.stderr
    assert "nothing was removed" in kept.stderr and folder.is_dir()
    gone = dragoman("models", "remove", folder.name, answer="y\n")
    assert gone.returncode == 0 and f"{folder.name} is removed: 217 kB are free" in gone.stderr
    assert not folder.exists()


def test_remove_does_not_ask_with_yes_or_without_a_terminal(gguf: Path, dragoman_home: Path):
    for arguments, answer in ((("--yes",), ""), ((), None)):
        folder = Path(weights.resolve(str(gguf)).source)
        done = dragoman("models", "remove", folder.name, *arguments, answer=answer)
        assert done.returncode == 0 and "?" not in done.stderr
        assert not folder.exists()


def test_an_unknown_name_removes_nothing(gguf: Path, dragoman_home: Path):
    folder = Path(weights.resolve(str(gguf)).source)
    done = dragoman("models", "remove", folder.name, "tyni", "--yes")
    assert done.returncode == 3 and "'tyni'" in done.stderr and "models list --all" in done.stderr
    assert folder.is_dir() and len(conversions.conversions()) == 1


def test_a_home_that_cannot_be_written_is_one_clear_line(gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DRAGOMAN_HOME", str(tmp_path / "file" / "home"))
    verifier = ["verifier", f"--model={gguf}", "--listen=127.0.0.1:0"]  # the usual port may be another test's
    for command in (["models", "convert", str(gguf)], verifier, ["models", "check", str(gguf)]):
        done = dragoman(*command)
        assert done.returncode == 3 and "Traceback" not in done.stderr
        assert "cannot be written: Not a directory" in done.stderr + done.stdout
        assert "set DRAGOMAN_HOME" in done.stderr + done.stdout
    assert dragoman("models", "list", "--all").returncode == 0
