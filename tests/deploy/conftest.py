"""Images and models for the tests in containers, made once a session."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.support.containers import build


@pytest.fixture(scope="session")
def container_images(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Built from these sources, unless ``DRAGOMAN_IMAGES_BUILT`` says that they are."""
    if not os.environ.get("DRAGOMAN_IMAGES_BUILT"):
        build(tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="session")
def container_models(tmp_path_factory: pytest.TempPathFactory, tiny_qwen2: Path, tiny_llama: Path) -> Path:
    """A folder with ``target`` and ``drafter`` that user 10001 may read."""
    folder = tmp_path_factory.mktemp("given")
    for name, made in (("target", tiny_qwen2), ("drafter", tiny_llama)):
        shutil.copytree(made, folder / name)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder
