"""What processes hold while a soak runs, and whether it grows."""

from __future__ import annotations

import asyncio
import re
import statistics
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import psutil

from speculation.errors import DragomanError

#: What may be more at the end than after the first quarter: a share, and so much in any case (bytes for memory).
GROWTH: Final = {"memory": (0.05, 16 << 20), "files": (0.0, 8), "threads": (0.0, 2), "tasks": (0.0, 16)}

#: The process that asks for texts: this one.
CLIENTS: Final = "clients"


@dataclass(frozen=True, slots=True)
class Sample:
    """Of one process. ``at``: seconds since the beginning. ``tasks``: of asyncio; None where nobody tells."""

    process: str
    at: float
    memory: int
    files: int
    threads: int
    tasks: int | None


class Watch:
    """Samples of processes by name. ``tasks_at``: of which the metrics page tells how many tasks there are."""

    def __init__(self, processes: dict[str, psutil.Process], tasks_at: dict[str, str]) -> None:
        self._processes = processes
        self._tasks_at = tasks_at
        self.samples: list[Sample] = []

    @property
    def to_tell(self) -> set[tuple[str, str]]:
        """Processes and resources of which there must be samples."""
        tasks = {CLIENTS, *self._tasks_at}
        return {(name, kind) for name in self._processes for kind in GROWTH if kind != "tasks" or name in tasks}

    async def run(self, every: float) -> None:
        """Until cancelled; seconds between samples. Raises DragomanError if a process is gone."""
        began = time.monotonic()
        while True:
            for name, process in self._processes.items():
                try:
                    with process.oneshot():
                        held = (process.memory_info().rss, process.num_fds(), process.num_threads())
                except psutil.Error as error:
                    raise DragomanError(f"{name} is gone: {error}") from error
                tasks = await self._tasks(name, process)
                self.samples.append(Sample(name, time.monotonic() - began, *held, tasks))
            await asyncio.sleep(every)

    async def _tasks(self, name: str, process: psutil.Process) -> int | None:
        if name == CLIENTS:
            return len(asyncio.all_tasks())
        if name not in self._tasks_at:
            return None
        try:
            page = await asyncio.to_thread(_read, self._tasks_at[name])
        except OSError:  # it is held
            return None
        found = re.search(r"^dragoman_event_loop_tasks (\S+)$", page, re.MULTILINE)
        return None if found is None else int(float(found[1]))


def _read(address: str) -> str:
    with urllib.request.urlopen(address, timeout=5) as answer:
        return str(answer.read().decode())


def growth(samples: Sequence[Sample]) -> list[dict[str, object]]:
    """For each process and resource the medians of the second quarter of the time and of the last one, and whether
    the growth between them is within ``GROWTH``. The first quarter fills caches."""
    rows: list[dict[str, object]] = []
    end = max((sample.at for sample in samples), default=0.0)
    for process in dict.fromkeys(sample.process for sample in samples):
        mine = [sample for sample in samples if sample.process == process]
        for resource, (share, least) in GROWTH.items():
            early = _median(mine, resource, lambda at: end / 4 <= at < end / 2)
            late = _median(mine, resource, lambda at: at >= end * 3 / 4)
            if early is not None and late is not None:
                flat = late - early <= max(early * share, least)
                rows.append({"process": process, "resource": resource, "early": early, "late": late, "flat": flat})
    return rows


def _median(samples: Sequence[Sample], resource: str, within: Callable[[float], bool]) -> float | None:
    found = [value for sample in samples if within(sample.at) and (value := getattr(sample, resource)) is not None]
    return statistics.median(found) if found else None
