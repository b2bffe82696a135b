"""Shared fixtures: tiny models made once a session, a cache folder of one's own, hypothesis profiles."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from language_models.causal_lm import CausalLM
from tests.support import tiny_architectures, tiny_models, warm_start

settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("nightly", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


if sys.platform == "linux" and not os.environ.get("DRAGOMAN_COLD_START"):
    subprocess.Popen = warm_start.WarmPopen  # type: ignore[misc]


def pytest_configure(config: pytest.Config) -> None:
    """Only tests that are asked for with ``-m gpu`` see a GPU, so that the others say the same on any machine."""
    asked = str(config.option.markexpr)
    if not re.search(r"\bgpu\b", asked) or re.search(r"\bnot\s+gpu\b", asked):
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # none; of an empty one Ray says that a node cannot have GPUs


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    from tests.support.scheduling import ByFile

    return ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        from tests.support.scheduling import longest_files_first

        longest_files_first(items)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny models on many threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.tiny_llama(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def tiny_qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.tiny_qwen2(tmp_path_factory.mktemp("models") / "tiny-qwen2")


@pytest.fixture(scope="session")
def tiny_gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.tiny_gemma(tmp_path_factory.mktemp("models") / "tiny-gemma")


@pytest.fixture(scope="session")
def shared_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the models of ``tiny_architectures``."""
    return tiny_architectures.shared_tokenizer(tmp_path_factory.mktemp("models") / "tokenizer")


@pytest.fixture
def architecture(tmp_path: Path, shared_tokenizer: Path, dragoman_home: Path) -> Callable[..., CausalLM]:
    """Loads a random model of an architecture: (its name, dtype, settings of its configuration)."""

    def load(name: str, dtype: str = "float32", **settings: object) -> CausalLM:
        folder = tmp_path / "architectures" / name.replace(" ", "-")
        if not folder.exists():
            tiny_architectures.tiny_architecture(name, folder, tokenizer=shared_tokenizer, **settings)
        return CausalLM.load(str(folder), dtype=dtype, device="cpu", threads=1)

    return load


@pytest.fixture
def dragoman_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder in place of the user's."""
    monkeypatch.setenv("DRAGOMAN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
