"""A target and its drafters as child processes on this machine, which meet on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from drafter_service.loading import LOOKUP_MODEL
from drafter_service.settings import DrafterSettings
from dragoman.child_words import ChildWords
from dragoman.devices import runs_on_cpu
from dragoman.processes import ChildProcess, child
from dragoman.taking_turns import TAKING_TURNS_OPTIONS
from speculation.errors import DragomanError
from transport.backoff import Backoff
from transport.security import VARIABLES
from verifier_service.settings import VerifierSettings

log = logging.getLogger(__name__)

#: Before a drafter that ended is started again. One that lived for longer than the longest has earned a quick start.
RESTARTS: Final = Backoff(shortest=1.0, longest=60.0, factor=2.0)
#: What services of this machine are told by; these children are told all by their options.
_OTHERS: Final = ("DRAGOMAN_VERIFIER_", "DRAGOMAN_DRAFTER_")


@dataclass(frozen=True, slots=True)
class LocalModels:
    """What is to run. ``log_options``: how each process logs, as options."""

    target: VerifierSettings
    drafters: Sequence[DrafterSettings]
    log_options: Sequence[str] = ()

    @property
    def take_turns(self) -> bool:
        """Whether the target and a drafter's model compute on the same processors."""
        drafting = [drafter.device for drafter in self.drafters if drafter.model != LOOKUP_MODEL]
        return runs_on_cpu(self.target.device) and any(map(runs_on_cpu, drafting))

    def verifier_arguments(self) -> list[str]:
        """Of `dragoman`."""
        target = self.target
        arguments = ["verifier", "--listen=127.0.0.1:0", *_model_options(target), *self.log_options]
        if target.kv_memory is not None:
            arguments.append(f"--kv-memory={target.kv_memory}")
        if target.tensor_parallel > 1:
            arguments.append(f"--tensor-parallel={target.tensor_parallel}")
        return [*arguments, *(TAKING_TURNS_OPTIONS if self.take_turns else ())]

    def drafter_arguments(self, drafter: DrafterSettings, verifier: str) -> list[str]:
        """Of `dragoman`. ``verifier``: its address."""
        return ["drafter", f"--verifier={verifier}", *_model_options(drafter), *self.log_options]


def _model_options(settings: VerifierSettings | DrafterSettings) -> list[str]:
    options = [
        f"--model={settings.model}",
        f"--device={settings.device}",
        f"--dtype={settings.dtype}",
        f"--threads={settings.threads or 0}",
        f"--max-sessions={settings.max_sessions}",
    ]
    if isinstance(settings, DrafterSettings):
        options.append(f"--prefix-memory={settings.prefix_memory or '1B'}")
    return [*options, *(["--trust-remote-code"] if settings.trust_remote_code else [])]


def _environment() -> dict[str, str]:
    """Of the children: on loopback they need no certificates, whatever those of this machine are for."""
    return {name: value for name, value in os.environ.items() if name not in VARIABLES and not name.startswith(_OTHERS)}


class LocalFleet:
    """Starts the processes and stops them. A drafter that ends is started again; the target must not end."""

    def __init__(self, models: LocalModels, words: ChildWords, *, restarts: Backoff = RESTARTS) -> None:
        self._models = models
        self._words = words
        self._restarts = restarts

    @contextlib.asynccontextmanager
    async def target(self) -> AsyncIterator[tuple[ChildProcess, str]]:
        """The verifier, ready, and its address. Raises DragomanError with its last words if it does not become so."""
        name = f"target {self._models.target.model}"
        self._words.starting(f"the {name}")
        async with self._child(name, self._models.verifier_arguments()) as verifier:
            yield verifier, (await verifier.ready())["address"]

    async def draft(self, verifier: str, *, on_ready: Callable[[], None]) -> None:
        """Keep the drafters running until it is cancelled. ``on_ready`` is told once all of them draft.

        Raises DragomanError if one of them cannot be started at first.
        """
        waiting = len(self._models.drafters)

        def one_is_ready() -> None:
            nonlocal waiting
            waiting -= 1
            if waiting == 0:
                on_ready()

        if not waiting:
            on_ready()
        else:
            models = " and ".join(drafter.model for drafter in self._models.drafters)
            self._words.starting(f"{'the drafter' if waiting == 1 else 'the drafters'} {models}")
        keeping = [
            asyncio.create_task(self._keep(drafter, verifier, one_is_ready)) for drafter in self._models.drafters
        ]
        try:
            await asyncio.gather(*keeping, asyncio.Event().wait())
        finally:
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)

    async def _keep(self, drafter: DrafterSettings, verifier: str, on_ready: Callable[[], None]) -> None:
        """Run it, and again whenever it ends. What kept it from its first start is an error, and later a warning."""
        arguments = self._models.drafter_arguments(drafter, verifier)
        loop, failures, started_once = asyncio.get_running_loop(), 0, False
        while True:
            began = loop.time()
            try:
                async with self._child(f"drafter {drafter.model}", arguments) as process:
                    await process.ready()
                    if started_once:
                        # As loud as what it takes back.
                        log.warning("the drafter %s drafts again", drafter.model)
                    else:
                        started_once = True
                        on_ready()
                    error = await process.death("while it drafted")
            except DragomanError as not_ready:
                if not started_once:
                    raise
                error = not_ready
            failures = 0 if loop.time() - began > self._restarts.longest else failures
            pause = self._restarts.delay(failures)
            failures += 1
            log.warning("%s\ntexts go on without it; it is started again in %.0f s", error.message, pause)
            await asyncio.sleep(pause)

    @contextlib.asynccontextmanager
    async def _child(self, name: str, arguments: Sequence[str]) -> AsyncIterator[ChildProcess]:
        async with child(name, arguments, environment=_environment()) as process:
            process.on_words = lambda line: self._words.heard(name, line)
            yield process
