"""`dragoman serve`: OpenAI's API in this process, a target and its drafters behind it as children of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from drafter_service.loading import LOOKUP_MODEL
from dragoman.child_words import ChildWords
from dragoman.curl_command import curl
from dragoman.gateway_backend import LateBackend, verifier_backend
from dragoman.loading import show_licence
from dragoman.local_fleet import LocalFleet, LocalModels
from dragoman.serving import say_ready
from dragoman.terminal import err, progress_bar
from gateway.server import GatewayServer
from gateway.settings import GatewaySettings
from language_models.weights import check_name, resolve
from transport.address import Address
from transport.security import Security
from transport.servers import check_bindable
from transport.signals import drop_further_signals, stop_signal

#: Between the processes: they are on loopback.
_PLAINTEXT: Final = Security()


def serve_locally(
    models: LocalModels,
    address: Address,
    settings: GatewaySettings,
    *,
    security: Security,
    words: ChildWords,
    ready_json: bool = False,
) -> None:
    """Serve until SIGINT or SIGTERM; then running texts may end within the grace, or until a second signal.

    ``security``: of the HTTP side. Raises ModelError for a model that there is not, ConnectionFailedError if the port
    is taken, and DragomanError with the last words of a target that ended, or of a drafter that could not be started.
    """
    names = [models.target.model, *(drafter.model for drafter in models.drafters if drafter.model != LOOKUP_MODEL)]
    for name in names:
        check_name(name)
    check_bindable(address)  # before minutes of converting
    for name in dict.fromkeys(names):
        show_licence(name)
        with progress_bar() as progress:  # converting is slow and belongs on this terminal, not a child's
            resolve(name, progress=progress)

    def on_ready(bound: Address, model: str) -> None:
        words.started()
        drafting = " and ".join(drafter.model for drafter in models.drafters)
        url = f"{'https' if security.serves_tls else 'http'}://{bound}"
        lines = [f"serving {model} at {url}/v1" + (f"; {drafting} drafting" if drafting else "")]
        lines += [f"watch it in a browser: {url}"] if settings.page else []
        say_ready("\n".join([*lines, "try it:", curl(url, security)]), ready_json, address=str(bound), model=model)

    def on_stopping() -> None:
        if not ready_json:
            err.print(f"stopping: texts that run may go on for {settings.grace:g} s; a second signal ends them")

    server = LocalServer(LocalFleet(models, words), settings, security=security)
    with words:
        asyncio.run(server.run(address, on_ready=on_ready, on_stopping=on_stopping))


class LocalServer:
    """The gateway, which answers from the start, and what it serves, once that is loaded."""

    def __init__(self, fleet: LocalFleet, settings: GatewaySettings, *, security: Security) -> None:
        self._fleet = fleet
        self._backend = LateBackend()
        self._gateway = GatewayServer(self._backend, settings, security=security)

    async def run(
        self, address: Address, *, on_ready: Callable[[Address, str], None], on_stopping: Callable[[], None]
    ) -> None:
        """Until SIGINT or SIGTERM, which ``on_stopping`` is told. ``on_ready``: told the bound address and the model's
        name. Raises what ``serve_locally`` raises."""
        stop = stop_signal()
        bound = await self._gateway.start(address)
        async with contextlib.AsyncExitStack() as outliving:
            outliving.callback(drop_further_signals)
            working = asyncio.create_task(self._work(outliving, lambda model: on_ready(bound, model)))
            tasks: list[asyncio.Task[Any]] = [working]
            try:
                if await _signalled(stop, tasks):
                    on_stopping()
                    stop.clear()
                    tasks.append(asyncio.create_task(self._gateway.stop()))
                    await _signalled(stop, tasks)
            finally:
                await self._gateway.stop(grace=0.0)
                # Until here the drafters went on, and until the stack is left the target does.
                working.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        if not working.cancelled():
            working.result()

    async def _work(self, outliving: contextlib.AsyncExitStack, on_ready: Callable[[str], None]) -> None:
        """Load and draft. What texts need that still run goes on ``outliving`` this. Raises DragomanError."""
        verifier, at = await outliving.enter_async_context(self._fleet.target())
        backend = await outliving.enter_async_context(verifier_backend(at, security=_PLAINTEXT))
        (model,) = await verifier.during(backend.models(), when="as soon as it was ready")
        self._backend.arrive(backend)
        drafting = self._fleet.draft(at, on_ready=lambda: on_ready(model.name))
        await verifier.during(drafting, when="while it served")


async def _signalled(stop: asyncio.Event, tasks: Sequence[asyncio.Task[Any]]) -> bool:
    """Once one of the tasks is done, or ``stop`` is set: whether it was that."""
    waiting = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((waiting, *tasks), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    return not any(task.done() for task in tasks)
