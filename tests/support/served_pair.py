"""A target with a drafter of another vocabulary, as a person starts them."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from dragoman.processes import ChildProcess, child
from dragoman.taking_turns import TAKING_TURNS_OPTIONS


class ServedPair:
    """A verifier and a drafter as processes, in an event loop of their own."""

    def __init__(self, target: Path, drafter: Path) -> None:
        self._runner = asyncio.Runner()
        self._stack = contextlib.AsyncExitStack()
        self.address = self._runner.run(self._start(target, drafter))

    async def _start(self, target: Path, drafter: Path) -> str:
        plan = (*TAKING_TURNS_OPTIONS, "--patience=5000")  # a drafter that is starved for a while drafts all the same
        verifier = await self._enter("verifier", f"--model={target}", "--listen=127.0.0.1:0", *plan)
        address = (await verifier.ready())["address"]
        drafting = await self._enter("drafter", f"--model={drafter}", f"--verifier={address}")
        await drafting.ready()
        return address

    async def _enter(self, *arguments: str) -> ChildProcess:
        options = ("--dtype=float32", "--threads=1")
        return await self._stack.enter_async_context(child(arguments[0], [*arguments, *options]))

    def close(self) -> None:
        """End both."""
        self._runner.run(self._stack.aclose())
        self._runner.close()
