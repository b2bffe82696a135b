"""A verifier with its client, and drafters for it: the real commands, as processes of this machine, on free ports."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from benchmarks.certificates import PLAINTEXT
from benchmarks.namespaces import Host
from dragoman.client import Client
from dragoman.processes import ChildProcess, child
from transport.security import Security

#: Sessions that both are ready for at least: the verifier's own default.
SESSIONS = 64


@dataclass(frozen=True, slots=True)
class Side:
    """How one kind of process runs. ``options``: any others of its command, which go before the rest."""

    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0
    sessions: int = SESSIONS
    options: tuple[str, ...] = ()

    def arguments(self, model: str) -> list[str]:
        """Of the command."""
        places = [f"--model={model}", f"--device={self.device}", f"--dtype={self.dtype}", f"--threads={self.threads}"]
        return [*places, f"--max-sessions={max(SESSIONS, self.sessions)}", *self.options]


@dataclass(frozen=True, slots=True)
class Serving:
    """A verifier that is ready."""

    verifier: ChildProcess
    address: str
    client: Client


@contextlib.asynccontextmanager
async def serving(
    target: str, side: Side, *plan: str, security: Security | None = None, host: Host | None = None
) -> AsyncIterator[Serving]:
    """`dragoman verifier`. ``plan``: options of its own that ``side`` may overrule. ``security``: of its client.
    ``host``: where it runs, in plaintext; None: on this one.

    Raises DragomanError if it dies.
    """
    listen = ["--listen=127.0.0.1:0"] if host is None else [f"--listen={host.address}:0", "--allow-plaintext"]
    arguments = ["verifier", *listen, *plan, *side.arguments(target)]
    async with child("verifier", arguments, within=host.within if host else ()) as verifier:
        address = (await verifier.ready())["address"]
        async with Client(address, security=PLAINTEXT if host else security) as client:
            yield Serving(verifier, address, client)


@contextlib.asynccontextmanager
async def drafting(
    models: Sequence[str], address: str, side: Side, *, host: Host | None = None
) -> AsyncIterator[list[ChildProcess]]:
    """A `dragoman drafter` for each model, all connected; ``host``: as of ``serving``. Raises DragomanError if one
    dies."""
    plain, within = (["--allow-plaintext"], host.within) if host else ([], ())
    async with contextlib.AsyncExitStack() as stack:
        drafters = []
        for number, model in enumerate(models):
            arguments = ["drafter", f"--verifier={address}", f"--name=drafter-{number}", *plain, *side.arguments(model)]
            drafter = await stack.enter_async_context(child("drafter", arguments, within=within))
            await drafter.ready()
            drafters.append(drafter)
        yield drafters
