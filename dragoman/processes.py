"""Services as child processes on this machine: started, waited for until ready, always stopped.

A child says that it is ready with a line of JSON on its standard output (``--ready-json``), which also names the port
that it bound; so nothing sleeps and no port is guessed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

from speculation.errors import DragomanError

#: Lines of a child's standard error that are kept for the case that it dies.
_LAST_LINES = 12
_STOP_SECONDS = 10.0


class ChildProcess:
    """One `dragoman` command running as a child."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process
        self._errors: deque[str] = deque(maxlen=_LAST_LINES)
        self._drain = asyncio.create_task(self._read_errors())

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ready(self) -> dict[str, Any]:
        """What the child said when it was ready. Raises DragomanError with its last words if it died before."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                if isinstance(said, dict) and said.get("ready"):
                    return said
        code = await self._process.wait()
        await self._drain
        words = "\n".join(self._errors) or "it said nothing"
        error = DragomanError(f"the {self.name} ended with exit code {code} before it was ready:\n{words}")
        error.exit_code = code if 0 < code < 126 else 1
        raise error

    def kill(self) -> None:
        """SIGKILL, as a fault."""
        self._process.kill()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL if that is not heard."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        self._drain.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._drain

    async def _read_errors(self) -> None:
        assert self._process.stderr is not None
        while line := await self._process.stderr.readline():
            self._errors.append(line.decode(errors="replace").rstrip())


@contextlib.asynccontextmanager
async def child(
    name: str,
    arguments: Sequence[str],
    *,
    module: Sequence[str] = ("dragoman", "--ready-json"),
    cpus: Collection[int] = (),
    within: Sequence[str] = (),
) -> AsyncIterator[ChildProcess]:
    """`dragoman ARGUMENTS --ready-json` as a child of this process, stopped when the block is left.

    ``module``: another module, and what it takes after the arguments. ``cpus``: the processors it may use.
    ``within``: a command that runs it, in a network namespace say.
    """
    process = await asyncio.create_subprocess_exec(
        *within,
        sys.executable,
        "-m",
        module[0],
        *arguments,
        *module[1:],
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # Ctrl-C at the terminal is for the parent, which then stops its children.
        start_new_session=True,
    )
    if cpus:
        os.sched_setaffinity(process.pid, cpus)  # before it has threads, which inherit it
    started = ChildProcess(name, process)
    try:
        yield started
    finally:
        await started.stop()
