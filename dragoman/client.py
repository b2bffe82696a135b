"""The Python client: text from a verifier, as it is committed.

async with Client("127.0.0.1:50061") as client:
    completion = await client.complete("def add(a, b):", max_tokens=32)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TypeVar

import grpc

from dragoman.retries import Retries, may_help_later
from dragoman.text_client import TextClient
from dragoman.transcript import Transcript
from protos.dragoman.v1 import dragoman_pb2 as pb
from protos.dragoman.v1 import dragoman_pb2_grpc as pb_grpc
from speculation.errors import (
    DragomanError,
    DrainingError,
    LoadingError,
    ProtocolError,
    SessionError,
    WrongServiceError,
)
from speculation.protocol.completion import Completion
from speculation.protocol.generation import GenerationEvent, GenerationRequest
from speculation.protocol.messages import Prompt
from speculation.protocol.status import VerifierStatus
from speculation.protocol.tokenizing import TokenPiece
from transport import codec
from transport.address import Address
from transport.channels import Connection
from transport.generation_codec import event_from_wire, request_to_wire, status_from_wire
from transport.limits import PROTOCOL_VERSION
from transport.security import Security
from transport.status import explain
from transport.tokenizing_codec import (
    detokenize_request_to_wire,
    detokenize_response_from_wire,
    tokenize_request_to_wire,
    tokenize_response_from_wire,
)
from transport.tracing import outgoing

log = logging.getLogger(__name__)

#: Requests of a text that may fail in a row at a fleet, and seconds that may pass without any new text.
ATTEMPTS, PATIENCE = 64, 30.0
#: Times in a row that one verifier may give a text up: what breaks it may break it every time.
ANSWERS = 3
#: Seconds that a verifier may take to tell of its tokens: a prompt of megabytes takes some.
TOKENIZE_SECONDS = 30.0
#: Seconds to find out what listens at an address.
_ASK_SECONDS = 2.0
_T = TypeVar("_T")


class Client(TextClient):
    """A connection to one verifier. Use as an async context manager.

    While the verifier still loads its model, every method waits for it, for up to ``patience`` seconds. ``resume``: so
    long, without any new text, a completion waits as well where the connection broke or the verifier stopped, and is
    written on from where it was by whoever answers at the same address; DivergedError if that one writes another text.
    ``security``: TLS, or plaintext to another machine; None: as the environment says.

    Every method raises ConnectionFailedError if nobody answers, AccessError if TLS or a certificate is in the way,
    InputError for a bad request, SessionError if the verifier gives up in mid-text.
    """

    def __init__(
        self,
        verifier: str | Address,
        *,
        resume: bool = False,
        patience: float = PATIENCE,
        security: Security | None = None,
    ) -> None:
        self._resume = resume
        self._patience = patience
        self.address = Address.parse(verifier, field="verifier") if isinstance(verifier, str) else verifier
        self._connection = Connection(self.address, security, who="verifier")

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def describe(self, *, timeout: float = 5.0) -> VerifierStatus:
        """The verifier's model, its drafters and its load."""
        request = pb.DescribeRequest(protocol_version=PROTOCOL_VERSION)
        response = await self._answer(lambda stub: stub.Describe(request, timeout=timeout))
        codec.check_version(response.protocol_version, who=f"the verifier at {self.address}")
        return status_from_wire(response)

    async def tokenize(self, prompt: Prompt | str) -> tuple[int, ...]:
        """The prompt's token ids, as this verifier would read it. Raises ProtocolError if it is too old to tell."""
        asked = prompt if isinstance(prompt, Prompt) else Prompt(text=prompt)
        request = tokenize_request_to_wire(asked)
        response = await self._answer(lambda stub: stub.Tokenize(request, timeout=TOKENIZE_SECONDS))
        return tokenize_response_from_wire(response, asked)

    async def detokenize(self, token_ids: Sequence[int]) -> tuple[TokenPiece, ...]:
        """What each token stands for. Raises ProtocolError if the verifier is too old to tell."""
        request = detokenize_request_to_wire(token_ids)
        response = await self._answer(lambda stub: stub.Detokenize(request, timeout=TOKENIZE_SECONDS))
        # Of a long prompt that takes a tenth of a second, in which a gateway has texts to pass on.
        return await asyncio.to_thread(detokenize_response_from_wire, response)

    async def _answer(self, call: Callable[[pb_grpc.VerifierServiceStub], Awaitable[_T]]) -> _T:
        """What the verifier answers once it has its model."""
        retries = Retries(attempts=ANSWERS, patience=self._patience)
        while True:
            try:
                return await self._call(call)
            except LoadingError as error:
                await self._wait(error, retries, 0)

    async def _call(self, call: Callable[[pb_grpc.VerifierServiceStub], Awaitable[_T]]) -> _T:
        async with self._connection.channel() as channel:
            try:
                return await call(pb_grpc.VerifierServiceStub(channel))
            except grpc.RpcError as error:
                raise await self._explain(error, channel) from error

    async def _explain(self, error: grpc.RpcError, channel: grpc.aio.Channel) -> DragomanError:
        explained = await explain(error, channel, self.address, who="verifier", security=self._connection.security)
        if isinstance(explained, WrongServiceError) and await self._is_verifier(channel):
            return ProtocolError(f"the verifier at {self.address} is too old for this call", remedy="update it")
        return explained

    async def _is_verifier(self, channel: grpc.aio.Channel) -> bool:
        """Whether a verifier of any release is there, as what all of them answer shows."""
        request = pb.DescribeRequest(protocol_version=PROTOCOL_VERSION)
        try:
            await pb_grpc.VerifierServiceStub(channel).Describe(request, timeout=_ASK_SECONDS)
        except grpc.RpcError:
            return False
        return True

    async def _write(self, transcript: Transcript) -> Completion:
        retries = Retries(attempts=ANSWERS, patience=self._patience)
        while True:
            try:
                return await self.follow(transcript)
            except DragomanError as error:
                broken_off = self._resume and transcript.begun and may_help_later(error)
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
        async with contextlib.aclosing(self._generate(transcript.next_request())) as events:
            async for event in events:
                if transcript.take(event):
                    return transcript.completion
        raise SessionError(f"the verifier at {self.address} ended the stream before the text was finished")

    async def _generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        async with self._connection.channel() as channel:
            metadata = outgoing().metadata or None
            call = pb_grpc.VerifierServiceStub(channel).Generate(request_to_wire(request), metadata=metadata)
            try:
                async for response in call:
                    if (event := event_from_wire(response)) is not None:
                        yield event
            except grpc.RpcError as error:
                raise await self._explain(error, channel) from error
            finally:
                call.cancel()  # does nothing to one that has ended
