"""Processes that follow a leader: what they are told arrives, losses are noticed on both sides, nobody is left."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from engine.followers import Followers
from engine.instructions import Changes, Pass
from engine.rank_group import Rank
from engine.step_tables import SequenceRows
from speculation.errors import DragomanError, ModelError

pytestmark = pytest.mark.process
PATIENCE = 60.0


@dataclass(frozen=True)
class Writes:
    """An engine that writes down what it is told."""

    path: Path

    def engine(self, rank: Rank) -> Any:
        def note(what: object) -> None:
            with self.path.open("a") as file:
                file.write(f"{rank.number} of {rank.size}: {what}\n")

        note("made")
        return SimpleNamespace(
            memory=SimpleNamespace(apply=lambda changes: note(sorted(changes.lines.items()))),
            shapes={1: SimpleNamespace(run=lambda sequences: note([list(each.tokens) for each in sequences]))},
        )


@dataclass(frozen=True)
class Fails:
    def engine(self, rank: Rank) -> Any:
        raise ModelError("no memory for it")


class Lost:
    """Waits for the loss of a follower."""

    def __init__(self) -> None:
        self._told = threading.Event()
        self.reason = ""

    def __call__(self, error: DragomanError) -> None:
        self.reason = str(error)
        self._told.set()

    def wait(self) -> str:
        assert self._told.wait(PATIENCE)
        return self.reason


@contextlib.contextmanager
def following(divided: Any, size: int, lost: Lost) -> Iterator[Followers]:
    followers = Followers(divided, size, Path("unused"), on_loss=lost)
    try:
        yield followers
    finally:
        followers.close()
        until = time.monotonic() + PATIENCE  # a process that another thread sees end first is known to have soon after
        while multiprocessing.active_children() and time.monotonic() < until:
            time.sleep(0.01)
        assert not multiprocessing.active_children()


def lines(path: Path, count: int) -> list[str]:
    until = time.monotonic() + PATIENCE
    while True:
        found = path.read_text().splitlines() if path.exists() else []
        if len(found) >= count:
            return sorted(found)
        assert time.monotonic() < until, found
        time.sleep(0.05)


def test_they_do_what_they_are_told_in_order(tmp_path: Path):
    path, lost = tmp_path / "told", Lost()
    rows = SequenceRows(slot=0, base=3, tokens=[7, 8], parents=[-1, 0], pages=[1])
    with following(Writes(path), 3, lost) as followers:
        lines(path, 2)
        with followers.leading(Changes(lines={4: (1, 2)})):
            pass
        with followers.leading(Pass(1, (rows,))):
            pass
        found = lines(path, 6)
    assert found == [f"{n} of 3: {what}" for n in (1, 2) for what in ("[(4, (1, 2))]", "[[7, 8]]", "made")]
    assert not lost.reason


def test_one_that_is_killed_is_missed(tmp_path: Path):
    lost = Lost()
    with following(Writes(tmp_path / "told"), 2, lost):
        lines(tmp_path / "told", 1)
        [process] = multiprocessing.active_children()
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        assert lost.wait() == "a model that is divided cannot go on: rank 1 of 2 ended (exit code -9)"


def test_one_that_cannot_be_made_says_why():
    lost = Lost()
    with following(Fails(), 2, lost):
        assert lost.wait() == "no memory for it"


def test_who_loads_with_one_that_cannot_be_made_is_told_why():
    """In its own words, as an error of this process."""
    with following(Fails(), 2, Lost()) as followers:
        error = followers.ended(within=PATIENCE)
        with pytest.raises(ModelError, match=r"^no memory for it$"):
            followers.check()
        assert isinstance(error, ModelError)


def test_a_pass_that_fails_at_the_leader_is_the_end(tmp_path: Path):
    """The others may have done what it has not."""
    lost = Lost()
    with following(Writes(tmp_path / "told"), 2, lost) as followers:
        with pytest.raises(MemoryError), followers.leading(Changes(lines={0: (1,)})):
            raise MemoryError("none left")
        assert lost.wait().endswith("the first rank failed in a pass of all: MemoryError: none left")


LEADS = """
import sys
from pathlib import Path
from engine.divided_target import DividedTarget
from multiprocessing import active_children
from speculation.drafts.candidates import CandidateTree

if __name__ == "__main__":
    engine = DividedTarget(sys.argv[1], device="cpu", dtype="float32", threads=1, kv_bytes=1 << 22).lead(2)
    print(active_children()[0].pid, flush=True)
    slot = engine.open([5, 6, 7])
    slot.step(5, CandidateTree())
    while "once" not in sys.argv:
        slot.step(5, CandidateTree())
"""


@contextlib.contextmanager
def leader(folder: Path, script: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """A process that computes with a follower, without end or ``once``, and that follower."""
    script.write_text(LEADS)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(folder), *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield process, psutil.Process(int(line))
    finally:
        process.kill()
        process.communicate()


def test_a_leader_whose_follower_is_killed_ends_with_a_line(tiny_llama: Path, tmp_path: Path):
    with leader(tiny_llama, tmp_path / "leads.py") as (process, follower):
        follower.kill()
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == ModelError.exit_code
    assert "a model that is divided cannot go on: rank 1 of 2 ended (exit code -9)" in said


def test_a_follower_does_not_outlive_its_leader(tiny_llama: Path, tmp_path: Path):
    """Killed in the middle of passes."""
    with leader(tiny_llama, tmp_path / "leads.py") as (process, follower):
        process.kill()
        follower.wait(PATIENCE)


def test_a_leader_that_ends_lets_its_follower_end(tiny_llama: Path, tmp_path: Path):
    with leader(tiny_llama, tmp_path / "leads.py", "once") as (process, follower):
        _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, said
        follower.wait(PATIENCE)
    assert "Traceback" not in said and "destroy_process_group" not in said
