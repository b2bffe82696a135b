"""The clients for programs without an event loop: the same methods, which block.

with SyncClient("127.0.0.1:50061") as client:
    for chunk in client.stream("def add(a, b):", max_tokens=32):
        print(chunk.text, end="")

Each has an event loop of its own in a thread, so it may be used where a loop runs already, in a notebook say, and from
any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, Unpack

from dragoman.client import PATIENCE, Client
from dragoman.fleet_client import FleetClient
from dragoman.in_process import Dragoman
from dragoman.loop_thread import LoopThread
from dragoman.taking_turns import TAKING_TURNS
from dragoman.text_client import CompletionStream, TextClient
from dragoman.transcript import TextOptions
from speculation.protocol.completion import Completion
from speculation.protocol.generation import Chunk
from speculation.protocol.messages import Prompt, SpeculationPlan
from speculation.protocol.status import VerifierStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drafter_service.draft_source import Drafter
    from transport.address import Address
    from transport.security import Security
    from verifier_service.engine import Engine

_T = TypeVar("_T")


class SyncCompletionStream:
    """Chunks of one completion, in order; ``completion`` is whole once they are through.

    Who leaves the loop early calls ``close``, or uses the stream as a context manager.
    """

    def __init__(self, loop: LoopThread, open_stream: Callable[[], CompletionStream]) -> None:
        self._loop = loop
        self._stream = loop.run(_call(open_stream))

    @property
    def completion(self) -> Completion:
        """As far as it is: whole after the last chunk."""
        return self._stream.completion

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        chunk = self._loop.run(_next(self._stream))
        if chunk is None:
            raise StopIteration
        return chunk

    def close(self) -> None:
        """Leave; a session that runs is ended. Idempotent."""
        self._loop.run(self._stream.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _call(make: Callable[[], _T]) -> _T:
    return make()


async def _next(stream: CompletionStream) -> Chunk | None:
    try:
        return await stream.__anext__()
    except StopAsyncIteration:
        return None


class SyncTextClient:
    """Use as a context manager. Raises what the asynchronous client raises."""

    def __init__(self, make: Callable[[], TextClient]) -> None:
        self._loop = LoopThread()
        try:
            self._client = self._loop.run(_call(make))
            self._loop.run(self._client.__aenter__())
        except BaseException:
            self._loop.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what this client holds."""
        try:
            self._loop.run(self._client.close())
        finally:
            self._loop.close()

    def complete(
        self,
        prompt: Prompt | str,
        *,
        on_chunk: Callable[[Chunk], None] = lambda chunk: None,
        **options: Unpack[TextOptions],
    ) -> Completion:
        """The answer to ``prompt``; ``on_chunk`` sees it grow, called in the client's thread."""
        return self._loop.run(self._client.complete(prompt, on_chunk=on_chunk, **options))

    def stream(self, prompt: Prompt | str, **options: Unpack[TextOptions]) -> SyncCompletionStream:
        """The answer to ``prompt``, chunk by chunk as it is committed."""
        return SyncCompletionStream(self._loop, lambda: self._client.stream(prompt, **options))

    def describe(self) -> VerifierStatus:
        """The verifier's model, its drafters and its load."""
        return self._loop.run(self._client.describe())


class SyncClient(SyncTextClient):
    """``Client`` without an event loop: a connection to one verifier."""

    def __init__(
        self,
        verifier: str | Address,
        *,
        resume: bool = False,
        patience: float = PATIENCE,
        security: Security | None = None,
    ) -> None:
        super().__init__(lambda: Client(verifier, resume=resume, patience=patience, security=security))


class SyncFleetClient(SyncTextClient):
    """``FleetClient`` without an event loop: completions from a whole fleet."""

    def __init__(
        self,
        coordinator: str | Address,
        *,
        model: str = "",
        patience: float = PATIENCE,
        security: Security | None = None,
    ) -> None:
        super().__init__(lambda: FleetClient(coordinator, model=model, patience=patience, security=security))


class SyncDragoman(SyncTextClient):
    """``Dragoman`` without an event loop: a target and its drafters in this process, loaded at once."""

    def __init__(
        self,
        target: str | Engine,
        drafters: Sequence[str | Drafter] = (),
        *,
        plan: SpeculationPlan = TAKING_TURNS,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
    ) -> None:
        super().__init__(lambda: Dragoman(target, drafters, plan=plan, device=device, dtype=dtype, threads=threads))
