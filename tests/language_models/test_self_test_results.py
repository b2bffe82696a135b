"""The results of self-tests: kept for the same weights on the same kind of machine, and never in the way of a load."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from language_models import self_test_results
from language_models.causal_lm import CausalLM
from language_models.causal_self_test import SelfTest, self_test
from language_models.shards import Shards
from speculation.errors import UnsupportedModelError


@pytest.fixture
def tests_run(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that were tried, in order."""
    tried: list[str] = []

    def counting(model: CausalLM, shards: Shards | None = None) -> SelfTest:
        tried.append(model.name)
        return self_test(model, shards)

    monkeypatch.setattr(self_test_results, "self_test", counting)
    return tried


def test_a_result_is_kept_for_the_same_weights(architecture, tests_run: list[str], dragoman_home: Path):
    first = architecture("gemma3_text").self_test
    assert architecture("gemma3_text").self_test == first
    assert tests_run == ["gemma3_text"]
    assert len(list((dragoman_home / "self-tests").glob("*.json"))) == 1


def test_what_memory_was_short_for_is_said_and_tried_again(
    architecture, tests_run: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    with monkeypatch.context() as short:
        short.setattr("language_models.causal_self_test.free_bytes", lambda device: 1000)
        assert architecture("mistral").self_test.unproven
    assert "could not be tried: its window of 16 tokens, whose keys take too much memory" in caplog.text
    caplog.clear()
    assert not architecture("mistral").self_test.unproven and len(tests_run) == 2
    assert not architecture("mistral").self_test.unproven and len(tests_run) == 2
    assert "could not be tried" not in caplog.text


def test_int8_and_float32_are_one_test_and_other_dtypes_another(architecture, tests_run: list[str]):
    architecture("llama", "float32"), architecture("llama", "int8")
    assert len(tests_run) == 1
    architecture("llama", "float16")
    assert len(tests_run) == 2


def test_other_weights_configuration_or_code_are_tried_anew(
    architecture, tests_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    architecture("llama")
    folder = tmp_path / "architectures" / "llama"
    os.utime(folder / "model.safetensors", ns=(1, 1))
    architecture("llama")
    assert len(tests_run) == 2, "the weights were written again"
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"rope_parameters": {"rope_type": "default", "rope_theta": 5.0}})
    )
    architecture("llama")
    assert len(tests_run) == 3
    monkeypatch.setattr(self_test_results.transformers, "__version__", "5.0.0")
    architecture("llama")
    assert len(tests_run) == 4
    architecture("llama")
    assert len(tests_run) == 4


@pytest.mark.parametrize("content", ["", "{", "[]", '{"row_dependence": ""}', '{"row_dependence": 1, "unproven": 3}'])
def test_a_corrupt_result_costs_a_test_only(architecture, tests_run: list[str], dragoman_home: Path, content: str):
    architecture("llama")
    (kept,) = (dragoman_home / "self-tests").glob("*.json")
    kept.write_text(content)
    assert architecture("llama").self_test.places
    assert len(tests_run) == 2
    assert json.loads(kept.read_text())["places"], "and is mended by it"


def test_a_folder_that_cannot_be_written_costs_no_architecture(architecture, tests_run: list[str], dragoman_home: Path):
    dragoman_home.write_text("a file where the folder should be")
    assert architecture("llama").self_test.places
    assert architecture("llama").self_test.places
    assert len(tests_run) == 2


def test_faults_are_not_kept(architecture, tests_run: list[str], dragoman_home: Path):
    for _ in range(2):
        with pytest.raises(UnsupportedModelError):
            architecture("gpt_neo")
    assert len(tests_run) == 2
    assert not list(dragoman_home.rglob("*.json"))


def test_only_the_newest_results_are_kept(architecture, dragoman_home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(self_test_results, "_KEPT", 2)
    for name in ("llama", "qwen2", "gpt2"):
        architecture(name)
    assert len(list((dragoman_home / "self-tests").glob("*.json"))) == 2
