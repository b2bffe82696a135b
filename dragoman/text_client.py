"""What every client of texts offers: a completion as a whole, or chunk by chunk as it grows."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Self, Unpack

from dragoman.transcript import TextOptions, Transcript, generation_request
from speculation.protocol.completion import Completion
from speculation.protocol.generation import Chunk, GenerationRequest, Started
from speculation.protocol.messages import Prompt
from speculation.protocol.status import VerifierStatus

#: Chunks as they come; None after the last.
_Chunks = asyncio.Queue[Chunk | None]


def _ignore_chunk(chunk: Chunk) -> None:
    pass


def _ignore_start(prompt_tokens: int) -> None:
    pass


class CompletionStream:
    """Chunks of one completion, in order; ``completion`` is whole once they are through.

    async for chunk in client.stream("def add(a, b):"):
        print(chunk.text, end="")

    The request begins with the first chunk that is asked for. Who leaves the loop early calls ``aclose``, or uses the
    stream as an async context manager; then the verifier ends the session.
    """

    def __init__(self, transcript: Transcript, write: Callable[[], Awaitable[Completion]], chunks: _Chunks) -> None:
        self._transcript = transcript
        self._write = write
        self._chunks = chunks
        self._writing: asyncio.Future[Completion] | None = None

    @property
    def completion(self) -> Completion:
        """As far as it is: whole after the last chunk."""
        return self._transcript.completion

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    async def __anext__(self) -> Chunk:
        if self._writing is None:
            self._writing = asyncio.ensure_future(self._write())
            self._writing.add_done_callback(lambda _: self._chunks.put_nowait(None))
        chunk = await self._chunks.get()
        if chunk is not None:
            return chunk
        self._chunks.put_nowait(None)  # for whoever asks again
        await self._writing  # raises what the completion failed with
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Leave; a session that runs is ended. Idempotent."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class TextClient(ABC):
    """Use as an async context manager."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @abstractmethod
    async def close(self) -> None:
        """End what this client holds."""

    @abstractmethod
    async def describe(self) -> VerifierStatus:
        """The verifier's model, its drafters and its load."""

    @abstractmethod
    async def _write(self, transcript: Transcript) -> Completion:
        """Have the transcript written to its end."""

    async def complete(
        self,
        prompt: Prompt | str,
        *,
        on_chunk: Callable[[Chunk], None] = _ignore_chunk,
        on_started: Callable[[int], None] = _ignore_start,
        **options: Unpack[TextOptions],
    ) -> Completion:
        """The answer to ``prompt``; ``on_chunk`` sees it grow. For the ``options`` see ``TextOptions``: sampling,
        max_tokens, stop, rule, draft, ignore_end, prediction, guide, logprobs, priority, cache_salt.

        ``on_started``: told the prompt's tokens as soon as the verifier has them, which may be long before any text.
        """
        request = generation_request(prompt, **options)
        return await self._write(Transcript(request, on_chunk, lambda started: on_started(started.prompt_tokens)))

    async def write(
        self,
        request: GenerationRequest,
        *,
        on_chunk: Callable[[Chunk], None] = _ignore_chunk,
        on_started: Callable[[Started], None] = lambda started: None,
        on_restart: Callable[[], None] | None = None,
    ) -> Completion:
        """The answer to a request that is made already; ``on_restart``: see ``FleetClient.complete``, others never
        begin anew. Raises what ``complete`` raises."""
        return await self._write(Transcript(request, on_chunk, on_started, on_restart=on_restart))

    def stream(self, prompt: Prompt | str, **options: Unpack[TextOptions]) -> CompletionStream:
        """The answer to ``prompt``, chunk by chunk as it is committed. Raises what ``complete`` raises."""
        chunks = _Chunks()
        transcript = Transcript(generation_request(prompt, **options), chunks.put_nowait)
        return CompletionStream(transcript, lambda: self._write(transcript), chunks)
