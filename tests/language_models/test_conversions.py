"""The cache of converted weights: what is in it, what comes out of it, and folders that cannot be written."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from filelock import FileLock
from safetensors import SafetensorError
from transformers import PreTrainedModel

from dragoman.ray_fleet import local_ray
from language_models import conversions, weights
from speculation.errors import InputError, UnknownModelError, WeightsError
from tests.support.tiny_gguf import tiny_gguf
from transport.address import Address


@pytest.fixture
def gguf(tiny_qwen2: Path, tmp_path: Path) -> Path:
    return tiny_gguf(tiny_qwen2, tmp_path / "files" / "tiny.gguf")[0]


def converted(file: Path) -> Path:
    return Path(weights.resolve(str(file)).source)


def test_each_stage_is_shown_once(gguf: Path, dragoman_home: Path):
    stages: list[str] = []
    weights.resolve(str(gguf), progress=lambda stage, done, total: stages.append(stage))
    assert list(dict.fromkeys(stages)) == ["checking", "converting", "noting digests"]
    shown = [stage for i, stage in enumerate(stages) if i == 0 or stages[i - 1] != stage]
    assert len(shown) == 3, "no stage comes twice"


def test_conversions_are_listed_with_where_they_came_from(gguf: Path, dragoman_home: Path):
    assert conversions.conversions() == []
    folder = converted(gguf)
    [found] = conversions.conversions()
    assert (found.name, found.source) == (folder.name, str(gguf))
    assert found.bytes_on_disk == sum(file.stat().st_size for file in folder.iterdir()) > 100_000
    (folder / conversions.MANIFEST).write_text("{")
    [damaged] = conversions.conversions()
    assert (damaged.name, damaged.source) == (folder.name, "")


def test_removing_frees_what_was_listed(gguf: Path, dragoman_home: Path):
    folder = converted(gguf)
    [found] = conversions.conversions()
    assert conversions.remove(found.name) == found.bytes_on_disk
    assert not folder.exists() and gguf.exists()
    assert conversions.conversions() == []
    with pytest.raises(UnknownModelError, match=found.name):
        conversions.remove(found.name)
    assert converted(gguf) == folder, "it can be converted again"


@pytest.mark.parametrize("name", ["..", ".", "", "../outside", "{outside}", "tiny/..", "absent"])
def test_nothing_outside_the_cache_is_removed(gguf: Path, tmp_path: Path, dragoman_home: Path, name: str):
    converted(gguf)
    outside = tmp_path / "home" / "outside"
    outside.mkdir()
    (outside / conversions.MANIFEST).write_text("{}")
    (tmp_path / "home" / "outside.lock").write_text("")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UnknownModelError, match="nothing named"):
        conversions.remove(name.format(outside=outside))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_is_removed_and_not_what_it_points_to(gguf: Path, tmp_path: Path, dragoman_home: Path):
    folder = converted(gguf)
    elsewhere = folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(elsewhere)
    assert converted(gguf) == folder
    conversions.remove(folder.name)
    assert not folder.is_symlink() and (elsewhere / "model.safetensors").is_file()


def test_what_another_process_is_converting_is_left_alone(gguf: Path, dragoman_home: Path):
    folder = converted(gguf)
    with FileLock(f"{folder}.lock"), pytest.raises(WeightsError, match="another process is converting"):
        conversions.remove(folder.name)
    assert converted(gguf) == folder
    coming = FileLock(dragoman_home / "models" / "coming.lock")
    with coming, pytest.raises(WeightsError, match="another process is converting coming"):
        conversions.remove("coming")


def test_what_a_killed_conversion_left_goes_with_the_next(gguf: Path, dragoman_home: Path):
    folder = converted(gguf)
    left = folder.parent / f".{folder.name}-ab12cd_9"
    others = folder.parent / f".{folder.name}-longer-ab12cd_9"
    for leftover in (left, others):
        (leftover / "built").mkdir(parents=True)
    conversions.remove(folder.name)
    assert not left.exists() and others.exists(), "another model's may be in the making"


# ---- folders that cannot be written


def test_a_home_below_a_file(gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DRAGOMAN_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(WeightsError, match=r"file/home/models/tiny-\w+ cannot be written: Not a directory") as caught:
        weights.resolve(str(gguf))
    assert "DRAGOMAN_HOME" in caught.value.remedy
    assert conversions.conversions() == [] and not any(status.converted for status in weights.list_models())


def test_what_else_is_kept_there_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The token of a Ray of one's own."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DRAGOMAN_HOME", str(tmp_path / "file" / "home"))
    monkeypatch.setenv(local_ray.MODE, "token")  # to be as it was afterwards
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(WeightsError, match="file/home cannot be written: Not a directory"):
        local_ray.LocalRay(Address("127.0.0.1", 1), "token", ()).use()


def test_a_home_that_takes_no_files(gguf: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DRAGOMAN_HOME", "/proc/self")
    with pytest.raises(WeightsError, match=r"/proc/self/models.* cannot be written") as caught:
        weights.resolve(str(gguf))
    assert "DRAGOMAN_HOME" in caught.value.remedy


def test_no_home_at_all(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DRAGOMAN_HOME", "~nobody-of-that-name/x")
    with pytest.raises(InputError, match="DRAGOMAN_HOME"):
        conversions.home()


@pytest.mark.parametrize(
    "failure",
    [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error: No space left on device")],
    ids=["system", "safetensors"],
)
def test_a_full_disk_leaves_nothing_behind(
    gguf: Path, dragoman_home: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
):
    def half(self: PreTrainedModel, folder: Path) -> None:
        Path(folder).mkdir()
        (Path(folder) / "model.safetensors").write_bytes(bytes(1000))
        raise failure

    with monkeypatch.context() as patched:
        patched.setattr(PreTrainedModel, "save_pretrained", half)
        with pytest.raises(WeightsError, match=r"cannot be written: .*No space left on device") as caught:
            weights.resolve(str(gguf))
    assert "free some space" in caught.value.remedy and "DRAGOMAN_HOME" in caught.value.remedy
    assert [file.suffix for file in (dragoman_home / "models").iterdir()] == [".lock"]
    assert converted(gguf).is_dir()


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="no /dev/full here")
def test_a_full_disk_while_parts_are_joined(
    tiny_qwen2: Path, tmp_path: Path, dragoman_home: Path, monkeypatch: pytest.MonkeyPatch
):
    parts = tiny_gguf(tiny_qwen2, tmp_path / "cut" / "tiny.gguf", parts=2)
    join = weights.join_parts

    def on_a_full_disk(given: list[Path], joined: Path, progress: conversions.Progress) -> None:
        joined.symlink_to("/dev/full")
        join(given, joined, progress)

    monkeypatch.setattr(weights, "join_parts", on_a_full_disk)
    with pytest.raises(WeightsError, match="cannot be written: No space left on device"):
        weights.resolve(str(parts[0]))
    assert [file.suffix for file in (dragoman_home / "models").iterdir()] == [".lock"]


def test_a_cache_that_is_only_read_still_serves(gguf: Path, dragoman_home: Path, monkeypatch: pytest.MonkeyPatch):
    folder = converted(gguf)

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(conversions, "FileLock", refuse)
    assert converted(gguf) == folder
    with pytest.raises(WeightsError, match="Read-only file system"):
        conversions.remove(folder.name)
    assert json.loads((folder / conversions.MANIFEST).read_text())["version"] == conversions.VERSION
