"""The verifier on the wire: a thin gRPC shell around ``Verifier``, with the standard health service."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import grpc

from protos.dragoman.v1 import dragoman_pb2 as pb
from protos.dragoman.v1 import dragoman_pb2_grpc as pb_grpc
from speculation.errors import DragomanError, LoadingError
from speculation.protocol.generation import Started
from transport.address import Address
from transport.audit import audit
from transport.bundles import bundled
from transport.first_message import first_message
from transport.generation_codec import event_to_wire, request_from_wire, status_to_wire
from transport.roles import caller
from transport.security import Security
from transport.servers import ServiceServer
from transport.signals import drop_further_signals, stop_signal
from transport.status import LOADING, status_of
from transport.tokenizing_codec import detokenize_request_from_wire, tokenize_request_from_wire
from verifier_service.drafter_link import DrafterLink
from verifier_service.metrics import StreamEnding
from verifier_service.request_span import RequestSpan
from verifier_service.verifier import Verifier

log = logging.getLogger(__name__)

#: Seconds that running texts are given when a verifier stops.
GRACE = 1.0
#: Seconds in which clients and drafters take leave after that.
_FAREWELL_SECONDS = 1.0
_BREAK_IS_TOLD_SECONDS = 0.1
#: In which a drafter that opened a stream says who it is.
HELLO_SECONDS = 10.0
SERVICE = pb.DESCRIPTOR.services_by_name["VerifierService"].full_name


class VerifierServicer(pb_grpc.VerifierServiceServicer):
    """Messages in, messages out; every decision is the verifier's. Until there is one, all is refused."""

    def __init__(self, verifier: Verifier | None) -> None:
        self.verifier = verifier

    def _loaded(self) -> Verifier:
        if self.verifier is None:
            raise LoadingError(LOADING, remedy="try again later")
        return self.verifier

    async def Describe(self, request: pb.DescribeRequest, context: grpc.aio.ServicerContext) -> pb.DescribeResponse:
        # No version check: a client of another release must be able to learn what it talks to.
        try:
            return status_to_wire(self._loaded().describe())
        except DragomanError as error:
            await context.abort(*status_of(error))

    async def Generate(
        self, request: pb.GenerateRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.GenerateResponse]:
        session, traced = None, RequestSpan(context)
        try:
            verifier = self._loaded()
            wanted = request_from_wire(request, verifier.limits)
            traced.asked(wanted, model=verifier.engine.name)
            async with contextlib.AsyncExitStack() as held:
                held.enter_context(verifier.quotas.session(caller()))
                events = await held.enter_async_context(
                    contextlib.aclosing(verifier.generate(wanted, span=traced.span))
                )
                async for event in events:
                    if isinstance(event, Started):
                        session = event.session
                        audit("session", by=caller(), session=session, prompt_tokens=event.prompt_tokens)
                    yield event_to_wire(event)
            traced.finished()
        except DragomanError as error:
            traced.failed(error)
            # Not its words, which may quote the request.
            audit("refused", by=caller(), call="Generate", session=session, reason=type(error).__name__)
            await context.abort(*status_of(error))
        except Exception as error:  # that nobody foresaw
            traced.failed(error)
            raise
        finally:
            traced.end()

    async def Tokenize(self, request: pb.TokenizeRequest, context: grpc.aio.ServicerContext) -> pb.TokenizeResponse:
        try:
            verifier = self._loaded()
            prompt = tokenize_request_from_wire(request, verifier.limits)
            return await verifier.tokenizing.tokenize(prompt)
        except DragomanError as error:
            audit("refused", by=caller(), call="Tokenize", reason=type(error).__name__)
            await context.abort(*status_of(error))

    async def Detokenize(
        self, request: pb.DetokenizeRequest, context: grpc.aio.ServicerContext
    ) -> pb.DetokenizeResponse:
        try:
            verifier = self._loaded()
            token_ids = detokenize_request_from_wire(request, verifier.limits)
            return await verifier.tokenizing.detokenize(token_ids)
        except DragomanError as error:
            audit("refused", by=caller(), call="Detokenize", reason=type(error).__name__)
            await context.abort(*status_of(error))

    async def Assist(
        self, requests: AsyncIterator[pb.AssistRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.AssistResponse]:
        with contextlib.ExitStack() as held:
            try:
                verifier = self._loaded()
                held.enter_context(verifier.quotas.stream(caller()))
                refusal = "a drafter's first message must be a hello"
                first = await first_message(requests, "hello", seconds=HELLO_SECONDS, refusal=refusal)
                link = verifier.roster.attach(first.hello, caller())
            except DragomanError as error:
                audit("refused", by=caller(), call="Assist", peer=context.peer(), reason=str(error))
                level = logging.DEBUG if isinstance(error, LoadingError) else logging.WARNING
                log.log(level, "refused a drafter: %s", error)
                await context.abort(*status_of(error))
                return
            async with contextlib.aclosing(_assisting(verifier, link, requests, context)) as messages:
                async for message in messages:
                    yield message


async def _assisting(
    verifier: Verifier, link: DrafterLink, requests: AsyncIterator[pb.AssistRequest], context: grpc.aio.ServicerContext
) -> AsyncGenerator[pb.AssistResponse, None]:
    """What is sent to a drafter that was let in, until its stream ends."""
    who = {"by": caller(), "drafter": link.hello.name, "instance": link.hello.instance or None}
    ending = StreamEnding.LEFT
    audit("drafter attached", **who, model=link.hello.model, trusted=link.trusted, peer=context.peer())
    try:
        async with _attached(verifier, link, requests) as reader:
            # One await, that of this handler itself: a task beside it would outlive a call that is cancelled.
            while messages := await link.outbox.next_messages():
                for message in bundled(messages, takes_several=link.hello.takes_several):
                    yield message
        if reader.done():
            reader.result()
            if not verifier.stopping:
                # gRPC may first say of a broken stream that it ended, as if the drafter took leave, and then cancel.
                await asyncio.sleep(_BREAK_IS_TOLD_SECONDS)
    except DragomanError as error:
        ending = StreamEnding.CUT_OFF
        audit("refused", **who, call="Assist", peer=context.peer(), reason=str(error))
        await context.abort(*status_of(error))
    except (asyncio.CancelledError, GeneratorExit):
        ending = StreamEnding.BROKEN
        raise
    finally:
        verifier.metrics.drafter_ended(ending)
        audit("drafter left", **who, ending=ending.value, rejected_messages=link.rejected_messages)


@contextlib.asynccontextmanager
async def _attached(
    verifier: Verifier, link: DrafterLink, requests: AsyncIterator[pb.AssistRequest]
) -> AsyncIterator[asyncio.Task[None]]:
    """The task that reads what the drafter sends."""
    reader = asyncio.create_task(_read(verifier, link, requests))
    measuring = asyncio.create_task(verifier.roster.keep_measuring(link))
    try:
        yield reader
    finally:
        reader.cancel()
        measuring.cancel()
        verifier.roster.detach(link)


async def _read(verifier: Verifier, link: DrafterLink, requests: AsyncIterator[pb.AssistRequest]) -> None:
    who = caller()
    try:
        async for message in requests:
            count = max(1, len(message.several.messages))
            verifier.quotas.messages(who, link.number, count, sessions=len(link.sessions))
            verifier.roster.receive(link, message)
    finally:
        link.outbox.end()


class VerifierServer:
    """A gRPC server with the verifier and the health service behind it.

    Without a verifier it holds its port while the model is loaded: it refuses all calls as UNAVAILABLE, which clients
    and drafters take for a reason to try again, and tells health checks that it does not serve. ``security`` None: as
    the environment says. ``health_listen``: see `ServiceServer`.
    """

    def __init__(
        self,
        verifier: Verifier | None = None,
        *,
        security: Security | None = None,
        health_listen: Address | None = None,
    ) -> None:
        self._servicer = VerifierServicer(verifier)
        self._server = ServiceServer(SERVICE, security, health_listen=health_listen)
        pb_grpc.add_VerifierServiceServicer_to_server(self._servicer, self._server.grpc)

    @property
    def verifier(self) -> Verifier:
        """Of a server that has one."""
        assert self._servicer.verifier is not None
        return self._servicer.verifier

    async def start(self, listen: Address) -> Address:
        """Bind and serve; returns the address with the port that was bound. Raises what ``bind`` raises."""
        return await self._server.start(listen, serving=self._servicer.verifier is not None)

    async def open(self, verifier: Verifier) -> None:
        """From now on ``verifier`` serves."""
        self._servicer.verifier = verifier
        await self._server.tell_health(serving=True)

    async def stop(self, grace: float = GRACE) -> None:
        """Not serving any more. Running texts are given ``grace`` seconds, then handed over to other verifiers;
        drafters are told to dial again."""
        await self._server.begin_shutdown()
        if self._servicer.verifier is None:
            await self._server.stop(0)
            return
        await self.verifier.stop_serving(grace)
        await self.verifier.roster.drain(reconnect_after_ms=1000)
        await self._server.stop(min(grace, _FAREWELL_SECONDS))
        self.verifier.shutdown()


async def serve_until_signal(
    server: VerifierServer, verifier: Verifier, *, on_ready: Callable[[], None], grace: float
) -> None:
    """Let ``verifier`` serve at the started server until SIGINT or SIGTERM. ``grace``: see `VerifierServer.stop`."""
    await server.open(verifier)
    stop = stop_signal()
    on_ready()
    try:
        await stop.wait()
    finally:
        await server.stop(grace)
        drop_further_signals()
