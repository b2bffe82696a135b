"""The ranks after the first one: processes that make the engine as it does, and then do what it tells them.

They are children of the leader and end with it, however it ends. If one of them is lost, what they hold together is: a
pass of the leader's would wait for it for ever, so the leader's process ends too, and its sessions go on elsewhere.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final, Protocol

from engine.instructions import Changes, Instruction
from engine.paged_engine import PagedEngine
from engine.rank_group import Rank
from speculation.errors import DragomanError, ModelError

log = logging.getLogger(__name__)

#: Seconds in which a follower that was told to has to end.
_ENDING: Final = 5.0
#: Seconds in which one that has ended is known to have.
_NOTICED: Final = 1.0
#: Seconds in which a leader that loads notices by itself that it cannot go on.
_LOADING: Final = 10.0


class Divided(Protocol):
    """What all ranks make alike; it travels to their processes. Raises DragomanError."""

    def engine(self, rank: Rank) -> PagedEngine: ...


def end_process(error: DragomanError) -> None:
    """At once: a thread that waits for another rank in a pass cannot be interrupted."""
    log.critical("%s", error)
    os._exit(error.exit_code)


class Followers:
    """Of a group of ``size`` that meets at ``store``, started here. ``on_loss``: called in a thread of its own when one
    of them is lost."""

    def __init__(
        self, divided: Divided, size: int, store: Path, *, on_loss: Callable[[DragomanError], None] = end_process
    ) -> None:
        self._size = size
        self._on_loss = on_loss
        self._closing = self._leading = False
        self._processes: list[BaseProcess] = []
        self._connections: list[Connection] = []
        self._error: DragomanError | None = None
        self._noticing = threading.Lock()
        spawning = multiprocessing.get_context("spawn")
        try:
            for number in range(1, size):
                ours, theirs = spawning.Pipe()
                # Daemons: no child of this process outlives it by an oversight.
                rank = Rank(number, size, store)
                process = spawning.Process(target=_follow, args=(divided, rank, theirs), daemon=True)
                process.start()
                theirs.close()
                self._processes.append(process)
                self._connections.append(ours)
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._watch, name="followers", daemon=True).start()

    @contextlib.contextmanager
    def leading(self, instruction: Instruction) -> Iterator[None]:
        """They do the same as the block."""
        self._leading = True
        message = pickle.dumps(instruction, protocol=pickle.HIGHEST_PROTOCOL)
        try:
            for connection in self._connections:
                connection.send_bytes(message)
            yield
        except BaseException as error:
            # What they have done and this rank has not cannot be made up for. That one is gone is known here first,
            # where a pass breaks off without it.
            reason = f"the first rank failed in a pass of all: {type(error).__name__}: {error}"
            self._lost(self.ended(within=_NOTICED) or _cannot_go_on(reason))
            raise

    def check(self) -> None:
        """Raises what ended one of them, if one has ended."""
        if error := self.ended(within=0):
            raise error

    def ended(self, within: float | None = None) -> DragomanError | None:
        """Why one of them did; None if none has within so many seconds."""
        ends = {process.sentinel: number for number, process in enumerate(self._processes, start=1)}
        for sentinel in wait(list(ends), within):
            with self._noticing:
                self._error = self._error or self._last_words(ends[sentinel])  # type: ignore[index]
            return self._error
        return None

    def close(self) -> None:
        """Let them end. Idempotent."""
        self._closing = True
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.join(_ENDING)
            if process.is_alive():  # in a pass, say, that this rank has left
                process.kill()
                process.join()

    def _watch(self) -> None:
        """Until one of them ends."""
        error = self.ended()
        until = time.monotonic() + _LOADING
        # Who loads with it finds that it is gone, or fails of the same, and can say so in its own words.
        while not (self._leading or self._closing) and time.monotonic() < until:
            time.sleep(_NOTICED / 10)
        assert error is not None, "there is no limit to the waiting"
        self._lost(error)

    def _last_words(self, number: int) -> DragomanError:
        connection, process = self._connections[number - 1], self._processes[number - 1]
        with contextlib.suppress(OSError, EOFError):
            if connection.poll():
                told = connection.recv()
                return told if isinstance(told, DragomanError) else _cannot_go_on(f"rank {number} failed: {told}")
        process.join(_ENDING)  # it is over, but not yet known to be
        return _cannot_go_on(f"rank {number} of {self._size} ended (exit code {process.exitcode})")

    def _lost(self, error: DragomanError) -> None:
        if not self._closing:
            self._closing = True
            self._on_loss(error)


def _cannot_go_on(reason: str) -> ModelError:
    return ModelError(f"a model that is divided cannot go on: {reason}")


def _follow(divided: Divided, rank: Rank, connection: Connection) -> None:
    """The process of a rank after the first."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all of a group: the leader ends in order, then this one
        signal.signal(number, signal.SIG_IGN)
    # The leader says the same of the same model, and its standard output may be read by a program.
    logging.getLogger().addHandler(logging.NullHandler())
    os.dup2(2, 1)
    threading.Thread(target=_end_with_leader, daemon=True).start()
    try:
        run_instructions(divided.engine(rank), connection)
    except Exception as error:
        with contextlib.suppress(OSError):
            connection.send(error if isinstance(error, DragomanError) else f"{type(error).__name__}: {error}")
        os._exit(1)
    os._exit(0)  # graphs and groups are not taken apart: others may be gone already


def _end_with_leader() -> None:
    """Even if this rank waits for it in a pass."""
    leader = multiprocessing.parent_process()
    assert leader is not None, "it is a child"
    wait([leader.sentinel])
    os._exit(0)


def run_instructions(engine: PagedEngine, connection: Connection) -> None:
    """What the leader tells, until it closes the connection."""
    shapes = engine.shapes
    while True:
        try:
            instruction: Instruction = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        if isinstance(instruction, Changes):
            engine.memory.apply(instruction)
        else:
            shapes[instruction.shape].run(instruction.sequences)
