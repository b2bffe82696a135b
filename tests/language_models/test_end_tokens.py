"""Which tokens end a text, wherever a model's files say so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_tokenizers import changed, load

#: A model whose files name no end but where a test says so.
SILENT: dict[str, Any] = {
    "template": "{% for m in messages %}{{ m.content }}\n{% endfor %}",
    "tokenizer_settings": {"eos_token": None},
}


def ends(path: Path) -> list[str]:
    vocab = load(path).vocab
    return [vocab.special[token] for token in vocab.end_ids]


def token_id(path: Path, name: str) -> int:
    return int(json.loads((path / "tokenizer.json").read_text())["model"]["vocab"][name])


@pytest.mark.parametrize("listed", [1, [1, 3]], ids=["one", "several"])
def test_the_configuration_alone_names_them(tiny_llama: Path, tmp_path: Path, listed: int | list[int]):
    path = changed(tiny_llama, tmp_path / "m", **SILENT, config={"eos_token_id": listed})
    vocab = load(path).vocab
    assert vocab.end_ids[: len(listed) if isinstance(listed, list) else 1] == tuple(
        listed if isinstance(listed, list) else [listed]
    )
    assert vocab.special[1] == "<|im_start|>" and not vocab.bytes_of(1)


def test_the_configuration_of_the_text_model_in_it_names_them(tiny_llama: Path, tmp_path: Path):
    text = {"model_type": "gemma3_text", "vocab_size": 420, "eos_token_id": [1, 0]}
    path = changed(tiny_llama, tmp_path / "m", **SILENT)
    (path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text, "eos_token_id": None}))
    assert ends(path)[:2] == ["<|im_start|>", "<|endoftext|>"]


def test_generation_settings_come_before_the_configuration(tiny_llama: Path, tmp_path: Path):
    config = {"eos_token_id": 1}
    spoken = changed(tiny_llama, tmp_path / "a", **SILENT, config=config, generation={"eos_token_id": [0]})
    assert 1 not in load(spoken).vocab.end_ids and load(spoken).vocab.end_ids[0] == 0
    silent = changed(tiny_llama, tmp_path / "b", **SILENT, config=config, generation={"do_sample": False})
    assert load(silent).vocab.end_ids[0] == 1


def test_an_end_that_the_model_cannot_say_is_none_of_its_vocabulary(tiny_llama: Path, tmp_path: Path):
    path = changed(tiny_llama, tmp_path / "m", **SILENT, config={"eos_token_id": [1, 9999]})
    assert load(path).end_ids[:2] == (1, 9999)
    assert 9999 not in load(path).vocab.end_ids
