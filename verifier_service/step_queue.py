"""Who waits for a step, or for a chunk of its prompt, and whose turn it is.

Sessions are stepped in the order in which they ask. Who has KV memory is the business of ``memory_queue.py``; the
others wait in order. Prompts are run chunk by chunk (``shared_prefill.py``), and between two chunks is a step if
anybody waits for one: so a step is held up by a chunk at most, however many long prompts there are, and a prompt by a
step for each chunk.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from verifier_service.memory_queue import MemoryQueue
from verifier_service.open_session import OpenSession
from verifier_service.shared_step import StepOutcome


class Prefilled:
    """The prompt is done, and the session waits for a step."""


#: Of a step, or of a whole prompt.
Outcome = StepOutcome | Prefilled


@dataclass(eq=False, slots=True)
class ScheduledSession:
    """A session between the event loop, which asks and takes outcomes, and the engine's thread.

    ``asked``: it waits, or runs, for all that the event loop knows. ``brought``, ``taken``: outcomes, as counted by the
    engine's thread and by the event loop. ``failed``: with what, beside its steps. ``left``: it is to be closed.
    """

    opened: OpenSession
    outcomes: asyncio.Queue[Outcome] = field(default_factory=asyncio.Queue)
    asked: bool = False
    brought: int = 0
    taken: int = 0
    failed: Exception | None = None
    left: bool = False


class StepQueue:
    """For both threads. ``most``: sessions of a step.

    While ``running``, the engine's thread has work, or will be given some, after which it asks for more.
    """

    def __init__(self, memory: MemoryQueue, *, most: int) -> None:
        self._memory = memory
        self._most = most
        self._lock = threading.Lock()
        self._steps: deque[ScheduledSession] = deque()
        self._chunks: deque[ScheduledSession] = deque()
        self._chunk_ran = False  # since the last step
        self._running = False

    def ask(self, session: ScheduledSession, *, chunk: bool) -> bool:
        """Wait for a step, or for a chunk. Whether the engine has to be set running for it."""
        with self._lock:
            if chunk:
                self._memory.enter(session.opened)
            (self._chunks if chunk else self._steps).append(session)
            return self._set_running()

    def leave(self, session: ScheduledSession) -> None:
        """It is stepped no more, but for the step that runs."""
        with self._lock:
            session.left = True
            for waiting in (self._steps, self._chunks):
                if session in waiting:
                    waiting.remove(session)

    def closed(self, opened: OpenSession) -> bool:
        """Its memory is free; whether the engine has to be set running for who waits for that."""
        with self._lock:
            self._memory.leave(opened)
            return bool(self._steps or self._chunks) and self._set_running()

    def next_turn(self) -> tuple[list[ScheduledSession], list[ScheduledSession]]:
        """Those that share the coming step; without any, whose prompts are to be run, if only the first of them can be.
        Nobody: not running any more."""
        with self._lock:
            prompts = self._prompts()
            if self._steps and (self._chunk_ran or not prompts):
                self._chunk_ran = False
                return [self._steps.popleft() for _ in range(min(self._most, len(self._steps)))], []
            self._chunk_ran = self._running = bool(prompts)
            for session in prompts:
                self._chunks.remove(session)
            return [], prompts

    def go_on(self, sessions: Sequence[ScheduledSession], *, chunk: bool) -> None:
        """They wait for the next one, behind those that asked meanwhile."""
        with self._lock:
            (self._chunks if chunk else self._steps).extend(session for session in sessions if not session.left)

    def put_back(self, sessions: Sequence[ScheduledSession]) -> None:
        """Their prompts had no room in the chunk: they wait for the next one, before all others."""
        with self._lock:
            self._chunks.extendleft(session for session in reversed(sessions) if not session.left)

    def still_running(self) -> bool:
        """Whether it is anybody's turn; else it is not running any more."""
        with self._lock:
            self._running = bool(self._steps) or bool(self._prompts())
            return self._running

    def clear(self) -> list[ScheduledSession]:
        """All that waited; it is not running any more."""
        with self._lock:
            waiting = [*self._steps, *self._chunks]
            self._steps.clear()
            self._chunks.clear()
            self._running = False
            return waiting

    def _set_running(self) -> bool:
        was_running, self._running = self._running, True
        return not was_running

    def _prompts(self) -> list[ScheduledSession]:
        waiting = {session.opened: session for session in self._chunks}
        return [waiting[opened] for opened in self._memory.prompts(list(waiting))]
