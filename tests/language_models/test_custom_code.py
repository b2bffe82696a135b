"""A model that brings Python code: nothing of it runs unless that was asked for, and nobody is asked on a terminal."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from language_models.causal_lm import CausalLM
from language_models.config import ModelConfig
from language_models.tokenizer import TextTokenizer
from language_models.weights import ModelFiles, resolve
from speculation.errors import UnsupportedModelError

pytestmark = pytest.mark.process

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM

Path("{marker}").write_text("ran")

class OwnConfig(LlamaConfig):
    model_type = "own_kind"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that the model's code would write."""
    return tmp_path / "marker"


@pytest.fixture
def own(tiny_llama: Path, tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Llama under a name of its own, whose code is in its folder."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = shutil.copytree(tiny_llama, tmp_path / "own")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own_kind",
        "auto_map": {"AutoConfig": "own_code.OwnConfig", "AutoModelForCausalLM": "own_code.OwnForCausalLM"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own_code.py").write_text(CODE.format(marker=marker))
    return folder


def test_code_is_not_run(own: Path, marker: Path):
    files = resolve(str(own))
    for load in (
        lambda: CausalLM.load(str(own), dtype="float32"),
        lambda: ModelConfig.read(files),
    ):
        with pytest.raises(UnsupportedModelError, match="brings code of its own") as caught:
            load()
        assert "--trust-remote-code" in caught.value.remedy
    assert not marker.exists()


def test_a_tokenizers_code_is_not_run(tiny_llama: Path, tmp_path: Path, marker: Path):
    folder = shutil.copytree(tiny_llama, tmp_path / "own")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": [None, "own_code.OwnTokenizer"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "own_code.py").write_text(CODE.format(marker=marker))
    with pytest.raises(UnsupportedModelError, match="brings code of its own"):
        TextTokenizer.from_pretrained(ModelFiles("own", str(folder), local=True), 428)
    assert not marker.exists()


def test_code_runs_where_it_is_trusted(own: Path, marker: Path, tiny_llama: Path):
    model = CausalLM.load(str(own), dtype="float32", trust_remote_code=True)
    assert marker.read_text() == "ran"
    plain = CausalLM.load(str(tiny_llama), dtype="float32")
    ids = plain.tokenizer.encode("The heron waits")
    assert model.forward(ids, model.new_cache()).equal(plain.forward(ids, plain.new_cache()))


def test_the_end_that_trusted_code_names_is_found(own: Path, marker: Path):
    """Without a question at the terminal, and where config.json alone names it."""
    (own / "generation_config.json").unlink(missing_ok=True)
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps(config | {"eos_token_id": 77}))
    assert 77 in CausalLM.load(str(own), dtype="float32", trust_remote_code=True).tokenizer.end_ids


def test_a_kind_that_transformers_knows_needs_no_code(own: Path, marker: Path):
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))
    CausalLM.load(str(own), dtype="float32")
    assert not marker.exists()


@pytest.mark.parametrize("command", ["verifier", "drafter"])
def test_a_terminal_is_not_asked(own: Path, marker: Path, command: str):
    """With a yes waiting at the terminal that nobody reads."""
    controller, terminal = pty.openpty()
    try:
        os.write(controller, b"y\n")
        done = subprocess.run(
            [sys.executable, "-m", "dragoman", command, f"--model={own}", "--dtype=float32"],
            stdin=terminal,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        os.set_blocking(terminal, False)
        assert os.read(terminal, 10) == b"y\n", "still there"
    finally:
        os.close(controller)
        os.close(terminal)
    assert done.returncode == 3 and "--trust-remote-code" in done.stderr
    assert "[y/N]" not in done.stdout + done.stderr and "Traceback" not in done.stderr
    assert not marker.exists()
