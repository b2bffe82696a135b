"""Which tests run in one worker, where several run at a time."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling


class ByFile(LoadScopeScheduling):
    """Workers take whole files; one of them takes all that start Ray, as two clusters at once are too much."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return "tests/ray_fleet" if file.startswith("tests/ray_fleet/") else file
