"""Which tests run in one worker, and in which order, where several run at a time."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

#: Marks of tests that take long, those that take longest first.
LONGEST = ("ray", "models", "slow", "process")


class ByFile(LoadScopeScheduling):
    """Workers take whole files; one of them takes all that start Ray, as two clusters at once are too much."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # by the number of tests: the longest are in files of two

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return "tests/ray_fleet" if file.startswith("tests/ray_fleet/") else file


def longest_files_first(items: list[pytest.Item]) -> None:
    """So that no worker begins the longest file when the others have nothing left."""
    ranks: dict[Any, int] = {}
    for item in items:
        ranks[item.path] = min(_rank(item), ranks.get(item.path, len(LONGEST)))
    items.sort(key=lambda item: ranks[item.path])


def _rank(item: pytest.Item) -> int:
    return next((rank for rank, mark in enumerate(LONGEST) if item.get_closest_marker(mark)), len(LONGEST))
