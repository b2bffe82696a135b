"""What several tests of the command line are run against."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.served_pair import ServedPair


@pytest.fixture(scope="module")
def pair(tiny_qwen2: Path, tiny_llama: Path) -> Iterator[ServedPair]:
    started = ServedPair(tiny_qwen2, tiny_llama)
    yield started
    started.close()
