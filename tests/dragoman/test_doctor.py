"""What `dragoman doctor` looks at, in this process; as a command: ``test_cli.py``."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from dragoman.doctor import Diagnosis, PairVerdict, diagnose, show


@pytest.fixture
def folder(tiny_llama: Path, tmp_path: Path) -> Path:
    """A copy of a model, to be damaged."""
    return shutil.copytree(tiny_llama, tmp_path / "model")


def said(found: Diagnosis) -> str:
    written = io.StringIO()
    show(found, Console(file=written, width=100))
    return written.getvalue()


def test_it_says_what_it_did_not_look_at(tiny_llama: Path):
    found = diagnose(str(tiny_llama), "lookup")
    assert found.verdict is not PairVerdict.CANNOT
    assert "No weights were loaded: `dragoman models check MODEL` proves" in said(found)


def test_weights_that_are_not_there_yet_are_not_missed(folder: Path):
    (folder / "model.safetensors").unlink()
    assert not diagnose(str(folder), "lookup").cannot


def test_a_file_of_weights_that_is_cut_short_cannot_work(folder: Path, tiny_llama: Path):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    target, drafter = diagnose(str(folder), "lookup"), diagnose(str(tiny_llama), str(folder))
    for role, found in (("target", target), ("drafter", drafter)):
        (problem,) = found.cannot
        assert found.verdict is PairVerdict.CANNOT and problem.startswith(f"of the {role}, ")
        assert problem.partition(": ")[0].endswith("model.safetensors is cut short or damaged")
    assert "models check" not in said(target)


def test_files_of_weights_that_are_missing_are_named(folder: Path):
    one, two = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
    (folder / "model.safetensors").rename(folder / one)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": one, "b": two}}))
    (problem,) = diagnose(str(folder), "lookup").cannot
    assert problem == f"of the target, model is incomplete: 1 of its 2 files of weights are missing: {two}"
