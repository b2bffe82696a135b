"""A model that is named with a digest is the one that was meant, or is not loaded."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from language_models.embedded import EMBEDDED
from language_models.pins import pinned, split_pin
from language_models.weights import resolve
from speculation.errors import InputError, UnknownModelError, WeightsError
from tests.support.commands import dragoman


def silent(stage: str, done: int, total: int) -> None:
    """No progress is shown."""


@pytest.fixture
def model(tiny_llama: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    return folder


def test_the_digest_of_a_folder_is_that_of_what_sha256sum_prints(model: Path):
    (model / ".hidden").write_text("not looked at")
    (model / "code").mkdir()
    (model / "code" / "modeling.py").write_text("pass")
    (model / ".cache").mkdir()
    (model / ".cache" / "x").write_text("not looked at")
    (model / "Zebra.txt").write_text("z")
    command = "LC_ALL=C; export LC_ALL; find * -type f | sort | xargs sha256sum | sha256sum"
    listed = subprocess.run(command, shell=True, cwd=model, capture_output=True, text=True)
    assert pinned(model, silent) == listed.stdout.split()[0]


def test_only_what_was_meant_is_loaded(model: Path):
    printed = dragoman("models", "digest", str(model))
    assert not printed.returncode, printed.stderr
    named = printed.stdout.strip()
    assert named.startswith(f"{model}@sha256:")
    files = resolve(named)
    assert files.source == str(model) and files.name == "model"
    template = model / "tokenizer_config.json"
    template.write_text(template.read_text() + " ")
    with pytest.raises(WeightsError, match=r"model: sha256 is [0-9a-f]{64}, not [0-9a-f]{64}"):
        resolve(named)
    resolve(str(model))


@pytest.mark.parametrize("pin", ["", "abc", "g" * 64, "0" * 63, "0" * 65])
def test_what_is_no_digest_is_told_before_anything_is_read(model: Path, pin: str):
    with pytest.raises(InputError, match="ends with no sha256"):
        resolve(f"{model}@sha256:{pin}")
    assert split_pin(str(model)) == (str(model), None)


def test_models_that_have_none_or_their_own(tmp_path: Path):
    for name in ("someone/model", str(tmp_path / "nowhere"), str(tmp_path / "nowhere.gguf")):
        with pytest.raises((UnknownModelError, WeightsError)) as caught:
            resolve(f"{name}@sha256:{'0' * 64}")
        assert caught.value.remedy
    name, embedded = next(iter(EMBEDDED.items()))
    with pytest.raises(WeightsError, match=f"{name}: sha256 is {embedded.sha256}, not 000"):
        resolve(f"{name}@sha256:{'0' * 64}")


def test_of_a_gguf_file_it_is_the_files_own(tmp_path: Path):
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF and more")
    assert pinned(path, silent) == hashlib.sha256(b"GGUF and more").hexdigest()
