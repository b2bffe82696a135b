"""Services as child processes on this machine: started, waited for until ready, always stopped.

They end with this process, however it ends: see ``dragoman.end_with_parent``.

A child says that it is ready with a line of JSON on its standard output (``--ready-json``), which also names the port
that it bound; so nothing sleeps and no port is guessed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from speculation.errors import DragomanError
from transport.signals import drop_further_signals

log = logging.getLogger(__name__)

#: Lines of a child's standard error that are kept for the case that it dies.
_LAST_LINES = 12
#: Bytes of a line; a longer one is told in pieces.
_LONGEST_LINE = 64 << 10
_STOP_SECONDS = 30.0
#: In which a process that died is known to be dead, in seconds.
_DEATH_SECONDS = 2.0
#: In which the pipes of an ended process are read to their end, and between two looks at whether it has ended, in
#: seconds.
_PIPE_SECONDS, _LOOK_SECONDS = 5.0, 0.02
#: A child may take so long to be ready, in seconds: it may have to read many gigabytes of weights.
READY_SECONDS = 900.0
_T = TypeVar("_T")


class ChildProcess:
    """One `dragoman` command running as a child.

    ``on_words`` is told each line of its standard error; what it raises is logged, and it is told the next.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.on_words: Callable[[str], None] = lambda line: None
        self._process = process
        self._errors: deque[str] = deque(maxlen=_LAST_LINES)
        self._drain = asyncio.create_task(self._read_errors())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; -N: ended by signal N."""
        return self._process.returncode

    @property
    def last_words(self) -> str:
        """The end of its standard error, for people."""
        return "\n".join(self._errors) or "it said nothing"

    async def ready(self, *, limit: float | None = None) -> dict[str, Any]:
        """What the child said when it was ready. Raises DragomanError with its last words if it died before, or was
        not ready within ``limit`` seconds, READY_SECONDS by default."""
        limit = READY_SECONDS if limit is None else limit
        try:
            async with asyncio.timeout(limit):
                return await self._ready()
        except TimeoutError as error:
            raise DragomanError(
                f"the {self.name} was not ready within {limit:g} s; the last that it said:\n{self.last_words}"
            ) from error

    async def _ready(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                if isinstance(said, dict) and said.get("ready"):
                    return said
        raise await self.death("before it was ready")

    async def during(self, work: Awaitable[_T], *, when: str = "before the work was done") -> _T:
        """The result of ``work``, which needs this child. Raises DragomanError with its last words if it dies;
        ``when``: how the error says that it should not have."""
        task = asyncio.ensure_future(work)
        death = asyncio.ensure_future(self._process.wait())
        try:
            await asyncio.wait((task, death), return_when=asyncio.FIRST_COMPLETED)
            if task.done() and task.exception() is not None:
                # A broken connection says less than the process behind it, whose end is noticed a moment later.
                await asyncio.wait((death,), timeout=_DEATH_SECONDS)
            if death.done() and not (task.done() and task.exception() is None):
                raise await self.death(when)
            return task.result()
        finally:
            for future in (task, death):
                future.cancel()
            await asyncio.gather(task, death, return_exceptions=True)

    async def death(self, when: str) -> DragomanError:
        """Waits until it has ended; the error that tells of it, with its last words and its exit code."""
        await self._process.wait()
        await self._drain
        code = self._process.returncode or 0
        end = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        error = DragomanError(f"the {self.name} {end} {when}:\n{self.last_words}")
        error.exit_code = code if 0 < code < 126 else 1
        return error

    def kill(self) -> None:
        """SIGKILL, as a fault."""
        self._process.kill()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL if that is not heard. What it has to say is read meanwhile, or it might not end."""
        rest = asyncio.ensure_future(self._read_out())
        try:
            await self._end()
            # For the end of both pipes asyncio waits before it lets go of a process: one that it still holds when the
            # event loop is closed complains. What a grandchild holds open is left to it.
            await asyncio.wait((rest, self._drain), timeout=_PIPE_SECONDS)
        finally:
            for reading in (rest, self._drain):
                reading.cancel()
            await asyncio.gather(rest, self._drain, return_exceptions=True)

    async def _end(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    await self._gone()
            except (TimeoutError, asyncio.CancelledError) as error:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
                if isinstance(error, asyncio.CancelledError):
                    raise
                await self._gone()

    async def _gone(self) -> None:
        # Not its wait(), which ends with its pipes (before Python 3.13), and a grandchild may hold them.
        while self._process.returncode is None:
            await asyncio.sleep(_LOOK_SECONDS)

    async def _read_out(self) -> None:
        """All of its standard output, unless somebody else reads it."""
        assert self._process.stdout is not None
        with contextlib.suppress(RuntimeError):
            while await self._process.stdout.read(_LONGEST_LINE):
                pass

    async def _read_errors(self) -> None:
        """To its end, whatever comes: a child whose pipe is full stands still."""
        assert self._process.stderr is not None
        rest = b""
        while part := await self._process.stderr.read(_LONGEST_LINE):
            *lines, rest = (rest + part).split(b"\n")
            if len(rest) >= _LONGEST_LINE:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._hear(line)
        if rest:
            self._hear(rest)

    def _hear(self, line: bytes) -> None:
        words = line.decode(errors="replace").rstrip()
        self._errors.append(words)
        try:
            self.on_words(words)
        except Exception:
            log.exception("what the %s said could not be passed on", self.name)


@contextlib.asynccontextmanager
async def child(
    name: str,
    arguments: Sequence[str],
    *,
    module: Sequence[str] = ("dragoman", "--ready-json"),
    cpus: Collection[int] = (),
    within: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[ChildProcess]:
    """`dragoman ARGUMENTS --ready-json` as a child of this process, stopped when the block is left.

    ``module``: another module, and what it takes after the arguments. ``cpus``: the processors it may use.
    ``within``: a command that runs it, in a network namespace say. ``environment``: its variables; None: those of this
    process.
    """
    process = await asyncio.create_subprocess_exec(
        *within,
        sys.executable,
        "-m",
        "dragoman.end_with_parent",
        module[0],
        *arguments,
        *module[1:],
        stdin=asyncio.subprocess.PIPE,  # never written to: its end tells the child that this process is gone
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # Ctrl-C at the terminal is for the parent, which then stops its children.
        start_new_session=True,
        env=environment,
    )
    if cpus:
        os.sched_setaffinity(process.pid, cpus)  # before it has threads, which inherit it
    started = ChildProcess(name, process)
    try:
        yield started
    finally:
        await started.stop()


def run_with_children(main: Coroutine[Any, Any, _T]) -> _T:
    """``asyncio.run``, except that SIGTERM and SIGHUP end ``main`` in order, as Ctrl-C does, and then this process."""
    received: list[signal.Signals] = []

    async def run() -> _T:
        task = asyncio.ensure_future(main)

        def end(number: signal.Signals) -> None:
            received.append(number)
            task.cancel()

        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                asyncio.get_running_loop().add_signal_handler(number, end, number)
        try:
            return await task
        finally:
            drop_further_signals()

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        if not received:
            raise
        sys.exit(128 + received[0])
