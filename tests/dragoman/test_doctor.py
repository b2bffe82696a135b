"""What `dragoman doctor` looks at, in this process; as a command: ``test_cli.py``."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from dragoman.doctor import Diagnosis, PairVerdict, diagnose, show
from speculation.errors import UnsupportedModelError


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


@pytest.mark.parametrize("is_decoder", [None, False, True])
def test_an_encoder_cannot_work_whoever_it_is(folder: Path, tiny_llama: Path, is_decoder: bool | None):
    settings = {} if is_decoder is None else {"is_decoder": is_decoder}
    config = {"model_type": "roberta", "vocab_size": 428, "max_position_embeddings": 64, "pad_token_id": 1}
    (folder / "config.json").write_text(json.dumps(config | settings))
    for role, found in (
        ("target", diagnose(str(folder), "lookup")),
        ("drafter", diagnose(str(tiny_llama), str(folder))),
    ):
        expected = f"the {role} is an encoder, whose tokens see those behind them (roberta without is_decoder)"
        assert found.cannot == ([] if is_decoder else [expected])


@pytest.mark.parametrize(("kind", "size"), [("distilbert", {}), ("t5", {"d_model": 32, "n_positions": 64})])
def test_a_kind_that_writes_nothing_cannot_work(folder: Path, kind: str, size: dict[str, int]):
    (folder / "config.json").write_text(json.dumps({"model_type": kind, "vocab_size": 428, **size}))
    [problem] = diagnose(str(folder), "lookup").cannot
    assert problem == f"the target is of a kind that transformers has no causal language model of ({kind})"


_LOCAL = {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "max_position_embeddings": 64}
#: What a configuration says, and what the self-test of every model with it fails for: "" if models with it pass.
KINDS: list[tuple[str, dict[str, object], str]] = [
    ("bloom", {}, "takes no positions from outside"),
    ("mpt", {}, "takes no positions from outside"),
    ("falcon", {"alibi": True}, "takes no positions from outside"),
    ("falcon", {"alibi": False}, ""),
    ("gemma3_text", {"use_bidirectional_attention": True}, "lets tokens see those behind them"),
    ("gemma3_text", {"use_bidirectional_attention": False}, ""),
    ("gemma4_text", {"use_bidirectional_attention": "all"}, "lets tokens see those behind them"),
    ("gemma4_text", {"use_bidirectional_attention": "vision"}, ""),
    ("gemma2", {"use_bidirectional_attention": True}, ""),
    ("gpt_neo", {**_LOCAL, "window_size": 60}, "counts its local windows by rows"),
    ("gpt_neo", {**_LOCAL, "window_size": 61}, ""),
    ("gpt_neo", {**_LOCAL, "attention_types": [[["global"], 2]], "window_size": 16}, ""),
    ("openai-gpt", {}, "takes no KV cache from outside"),
]


@pytest.mark.parametrize(("kind", "settings", "problem"), KINDS)
def test_a_kind_that_no_weights_would_let_pass_cannot_work(
    folder: Path, tiny_llama: Path, kind: str, settings: dict[str, object], problem: str
):
    (folder / "config.json").write_text(json.dumps({"model_type": kind, "vocab_size": 428, **settings}))
    for role, found in (
        ("target", diagnose(str(folder), "lookup")),
        ("drafter", diagnose(str(tiny_llama), str(folder))),
    ):
        assert bool(found.cannot) is bool(problem), found.cannot
        assert not problem or found.cannot[0].startswith(f"the {role} {problem}")


def test_code_that_a_model_brings_is_run_only_if_it_is_trusted(
    folder: Path, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    config = json.loads((folder / "config.json").read_text())
    brought = {"AutoConfig": "own_code.OwnConfig", "AutoModelForCausalLM": "own_code.OwnForCausalLM"}
    own = {"model_type": "own_kind", "auto_map": brought}
    (folder / "config.json").write_text(json.dumps(config | own))
    code = "from transformers import LlamaConfig\n\nclass OwnConfig(LlamaConfig):\n    model_type = 'own_kind'\n"
    (folder / "own_code.py").write_text(code)
    for pair in ((str(folder), "lookup"), (str(tiny_llama), str(folder))):
        with pytest.raises(UnsupportedModelError, match="brings code of its own") as refused:
            diagnose(*pair)
        assert "--trust-remote-code" in refused.value.remedy
        assert not diagnose(*pair, trust_remote_code=True).cannot
