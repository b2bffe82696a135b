"""A client of a whole fleet: asks the coordinator where to go, and resumes elsewhere when a verifier is lost.

async with FleetClient("127.0.0.1:50060") as client:
    completion = await client.complete("def add(a, b):", max_tokens=32)
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, Self, Unpack

from dragoman.client import ATTEMPTS, PATIENCE, Client
from dragoman.context_lengths import ContextLengths
from dragoman.coordinator_client import ROUTE_TIMEOUT, TIMEOUT, CoordinatorClient
from dragoman.retries import Retries
from dragoman.text_client import TextClient
from dragoman.transcript import TextOptions, Transcript, Writer, generation_request
from dragoman.verifier_clients import VerifierClients
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import (
    ConnectionFailedError,
    DivergedError,
    DragomanError,
    InputError,
    LimitExceededError,
    NoVerifierError,
)
from speculation.plural import count_of
from speculation.protocol.completion import Completion
from speculation.protocol.generation import Chunk
from speculation.protocol.messages import Prompt
from speculation.protocol.prefix import prefix_digest
from speculation.protocol.status import ServedModel, VerifierStatus
from speculation.protocol.tokenizing import TokenPiece
from transport.address import Address
from transport.security import Security

log = logging.getLogger(__name__)

#: Verifiers remembered for the time when no coordinator answers.
_REMEMBERED: Final = 256


class FleetClient(TextClient):
    """Use as an async context manager. ``model``: of the texts; empty: the only one that the fleet serves.

    A text outlives its verifier: when that dies, drains or is full, the client asks the coordinator again, without the
    one that failed, and resumes with the bytes that it has, at a verifier of the same model, vocabulary and dtype. When
    the coordinator does not answer, it goes to the verifiers that it last heard of. ``attempts``: requests that may
    fail in a row. ``patience``: seconds that may pass from the first failure on. New text restores both. ``security``:
    of the connections to the coordinator and to verifiers; None: as the environment says.
    """

    def __init__(
        self,
        coordinator: str | Address,
        *,
        model: str = "",
        attempts: int = ATTEMPTS,
        patience: float = PATIENCE,
        security: Security | None = None,
    ) -> None:
        self._security = security or Security.from_environment()
        self._coordinator = CoordinatorClient(coordinator, security=self._security)
        self._model = model
        self._attempts = attempts
        self._patience = patience
        self._verifiers = VerifierClients(self._security)
        self._known: dict[str, pb.RouteCandidate] = {}  # by address, the latest last
        self._context_lengths = ContextLengths(self._context_length)
        self._borrows = False

    def of_model(self, model: str) -> Self:
        """A client of another model of the fleet, over the connections of this one, which closes them."""
        other = copy.copy(self)
        other._model = model
        other._borrows = True
        return other

    async def close(self) -> None:
        """Close all connections, if they are this client's own."""
        if not self._borrows:
            await asyncio.gather(self._coordinator.close(), self._verifiers.close())

    @property
    def coordinator(self) -> Address:
        """Of the coordinator that is asked."""
        return self._coordinator.address

    async def move(self, coordinator: Address) -> None:
        """Ask the coordinator at this address from now on; texts that run go on. Raises InputError for one that may
        not be dialled."""
        await self._coordinator.move(coordinator)

    async def describe(self) -> VerifierStatus:
        """One of the verifiers that texts may go to. Raises what ``CoordinatorClient.route`` and ``Client.describe``
        raise."""
        async with self._any_verifier() as client:
            return await client.describe()

    async def tokenize(self, prompt: Prompt | str) -> tuple[int, ...]:
        """The prompt's token ids, as any verifier of the model would read it. Raises what ``Client.tokenize`` and
        ``CoordinatorClient.route`` raise."""
        async with self._any_verifier() as client:
            return await client.tokenize(prompt)

    async def detokenize(self, token_ids: Sequence[int]) -> tuple[TokenPiece, ...]:
        """What each token of the model stands for. Raises what ``tokenize`` raises."""
        async with self._any_verifier() as client:
            return await client.detokenize(token_ids)

    @contextlib.asynccontextmanager
    async def _any_verifier(self) -> AsyncIterator[Client]:
        candidate = await self._candidate(0, None, frozenset())
        async with self._verifiers.client(candidate.address) as client:
            yield client

    async def status(self) -> pb.StatusResponse:
        """The fleet as it stands. Raises what ``CoordinatorClient.status`` raises."""
        return await self._coordinator.status()

    async def models(self) -> tuple[ServedModel, ...]:
        """What the fleet serves, by name; of verifiers that differ in more than that, the first that registered.

        A model of which no verifier answers is among them, without its context length: whether texts of it are written
        is found out by asking for one. Where no coordinator answers, the models of verifiers that this client was sent
        to. Raises what ``CoordinatorClient.status`` raises if there never were any.
        """
        try:
            members = (await self._coordinator.status(timeout=ROUTE_TIMEOUT if self._known else TIMEOUT)).members
            served = [(m.model, m.verifier.vocab_hash, m.verifier.dtype) for m in members if m.HasField("verifier")]
        except ConnectionFailedError:
            if not self._known:
                raise
            served = [(known.model, known.vocab_hash, known.dtype) for known in self._known.values()]
        first = {model[0]: model for model in reversed(served)}
        lengths = await self._context_lengths.of(first)
        return tuple(ServedModel(*model, length) for model, length in zip(first.values(), lengths, strict=True))

    async def _context_length(self, model: str) -> int:
        return (await self.of_model(model).describe()).context_length

    async def complete(
        self,
        prompt: Prompt | str,
        *,
        on_chunk: Callable[[Chunk], None] = lambda chunk: None,
        on_started: Callable[[int], None] = lambda prompt_tokens: None,
        on_restart: Callable[[], None] | None = None,
        **options: Unpack[TextOptions],
    ) -> Completion:
        """The answer to ``prompt``, as ``Client.complete`` gives it, whatever becomes of single verifiers.

        ``on_restart``: where no verifier writes the text on as it was begun (a processor that rounds differently), it
        begins anew after this is called; without it, DivergedError is raised. At the end of patience the last error
        is raised, with what was tried.
        """
        return await self._write(
            Transcript(
                request=generation_request(prompt, **options),
                on_chunk=on_chunk,
                on_started=lambda started: on_started(started.prompt_tokens),
                on_restart=on_restart,
            )
        )

    async def _write(self, transcript: Transcript) -> Completion:
        retries = Retries(attempts=self._attempts, patience=self._patience)
        prefix = prefix_digest(transcript.prompt)
        failed: dict[str, DragomanError] = {}  # by instance, since the last pause
        while True:
            try:
                candidate = await self._candidate(prefix, transcript.must_write, frozenset(failed))
            except InputError:
                raise
            except DragomanError as error:
                if not (failed or self._known or isinstance(error, LimitExceededError)):
                    raise  # nobody was ever there
                reasons = list(failed.values())
                failed.clear()
                diverged = [reason for reason in reasons if isinstance(reason, DivergedError)]
                if not diverged:
                    # Why the last verifier failed says more than that there is no other.
                    await retries.pause(reasons[-1] if reasons else error)
                elif not transcript.restart():
                    raise diverged[-1] from error
                continue
            try:
                async with self._verifiers.client(candidate.address) as client:
                    return await client.follow(transcript)
            except DragomanError as error:
                if isinstance(error, InputError):
                    raise
                received = count_of(transcript.received, "byte")
                log.info("%s fails after %s of text: %s", candidate.address, received, error)
                retries.failed(error, transcript.received)
                failed[candidate.instance] = error

    async def _candidate(self, prefix: int, writer: Writer | None, exclude: frozenset[str]) -> pb.RouteCandidate:
        """Where to go next. Raises what ``CoordinatorClient.route`` raises if nowhere."""
        try:
            candidates = await self._coordinator.route(prefix, model=self._model, exclude=exclude, writer=writer)
        except (NoVerifierError, LimitExceededError, InputError):
            raise
        except DragomanError as error:
            for candidate in self._known.values():
                if candidate.instance not in exclude and self._would_do(candidate, writer):
                    log.info("%s; going to %s, which was there before", error, candidate.address)
                    return candidate
            raise
        for candidate in reversed(candidates):
            self._known.pop(candidate.address, None)
            self._known[candidate.address] = candidate
        while len(self._known) > _REMEMBERED:
            self._known.pop(next(iter(self._known)))
        return candidates[0]

    def _would_do(self, candidate: pb.RouteCandidate, writer: Writer | None) -> bool:
        if writer is None:
            return self._model in ("", candidate.model)
        return writer == Writer(candidate.model, candidate.vocab_hash, candidate.dtype)
