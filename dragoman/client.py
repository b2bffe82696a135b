"""The Python client: text from a verifier, as it is committed.

async with Client("127.0.0.1:50061") as client:
    completion = await client.complete(Prompt(text="def add(a, b):"), max_tokens=32)
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import Self, Unpack

import grpc

from dragoman.completion import Chunk, Completion
from dragoman.retries import Retries, may_help_later
from dragoman.transcript import TextOptions, Transcript, generate_request
from protos.dragoman.v1 import dragoman_pb2 as pb
from protos.dragoman.v1 import dragoman_pb2_grpc as pb_grpc
from speculation.errors import DragomanError, DrainingError, LoadingError, SessionError
from speculation.protocol.messages import Prompt
from transport import codec
from transport.address import Address
from transport.channels import open_channel
from transport.limits import PROTOCOL_VERSION
from transport.status import explain

__all__ = ["Chunk", "Client", "Completion"]

log = logging.getLogger(__name__)

#: Requests of a text that may fail in a row at a fleet, and seconds that may pass without any new text.
ATTEMPTS, PATIENCE = 64, 30.0
#: Times in a row that one verifier may give a text up: what breaks it may break it every time.
ANSWERS = 3


class Client:
    """A connection to one verifier. Use as an async context manager.

    While the verifier still loads its model, every method waits for it, for up to ``patience`` seconds. ``resume``: so
    long, too, does a text wait for a verifier that broke off, to be written on from where it was.

    Every method raises ConnectionFailedError if nobody answers, InputError for a bad request, SessionError if the
    verifier gives up in mid-text.
    """

    def __init__(self, verifier: str | Address, *, resume: bool = False, patience: float = PATIENCE) -> None:
        self._resume = resume
        self._patience = patience
        self.address = Address.parse(verifier, field="verifier") if isinstance(verifier, str) else verifier
        self._channel = open_channel(self.address)
        self._stub = pb_grpc.VerifierServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._channel.close()

    async def describe(self, *, timeout: float = 5.0) -> pb.DescribeResponse:
        """The verifier's model, its drafters and its load."""
        request = pb.DescribeRequest(protocol_version=PROTOCOL_VERSION)
        retries = Retries(attempts=ANSWERS, patience=self._patience)
        while True:
            try:
                response: pb.DescribeResponse = await self._stub.Describe(request, timeout=timeout)
                break
            except grpc.RpcError as error:
                explained = await explain(error, self._channel, self.address, who="verifier")
                if not isinstance(explained, LoadingError):
                    raise explained from error
                await self._wait(explained, retries, 0)
        codec.check_version(response.protocol_version, who=f"the verifier at {self.address}")
        return response

    async def complete(
        self,
        prompt: Prompt,
        *,
        on_chunk: Callable[[Chunk], None] = lambda chunk: None,
        on_started: Callable[[int], None] = lambda prompt_tokens: None,
        resume: bool | None = None,
        patience: float | None = None,
        **options: Unpack[TextOptions],
    ) -> Completion:
        """The answer to ``prompt``; ``on_chunk`` sees it grow. For the ``options`` see ``TextOptions``: sampling,
        max_tokens, stop, rule, draft, ignore_end, prediction.

        ``on_started``: told the prompt's tokens as soon as the verifier has them, which may be long before any text.

        ``resume``, if not as the client was made: where the connection breaks, or the verifier stops, wait for one at
        the same address and let it write the text on from where it was, for up to ``patience`` seconds without any new
        text; raises DivergedError if what answers there writes another text.
        """
        transcript = Transcript(generate_request(prompt, **options), on_chunk, on_started)
        resume = self._resume if resume is None else resume
        retries = Retries(attempts=ANSWERS, patience=self._patience if patience is None else patience)
        while True:
            try:
                return await self.follow(transcript)
            except DragomanError as error:
                broken_off = resume and transcript.begun and may_help_later(error)
                if not (broken_off or isinstance(error, LoadingError)):
                    raise
                await self._wait(error, retries, transcript.received)

    async def _wait(self, error: DragomanError, retries: Retries, received: int) -> None:
        """Before the next try. Raises ``error`` if patience ends."""
        gave_up = isinstance(error, SessionError) and not isinstance(error, DrainingError)
        retries.failed(error, received, counts=gave_up)
        if retries.failures == 1:
            # In the middle of a text nobody wants another line.
            level = logging.WARNING if isinstance(error, LoadingError) and not received else logging.INFO
            log.log(level, "%s; trying again", error.message)
        await retries.pause(error)

    async def follow(self, transcript: Transcript) -> Completion:
        """Let this verifier write the transcript's text on to its end."""
        async with contextlib.aclosing(self._generate(transcript.next_request())) as responses:
            async for response in responses:
                if transcript.take(response):
                    return transcript.completion
        raise SessionError(f"the verifier at {self.address} ended the stream before the text was finished")

    async def _generate(self, request: pb.GenerateRequest) -> AsyncGenerator[pb.GenerateResponse, None]:
        call = self._stub.Generate(request)
        try:
            async for response in call:
                yield response
        except grpc.RpcError as error:
            raise await explain(error, self._channel, self.address, who="verifier") from error
        finally:
            call.cancel()  # does nothing to one that has ended
