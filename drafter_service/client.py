"""The drafter on the wire: it dials out, drafts for what it is offered, and dials again whenever the link ends.

Edge machines sit behind NAT, so the drafter is always the client. One stream carries all sessions. A link that
ended costs nothing but time: on the next one the verifier offers the running sessions afresh.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from drafter_service.dialling import Dialling
from drafter_service.draft_source import Drafter
from drafter_service.hello import hello_of
from drafter_service.knocking import Knocking
from drafter_service.verifier_link import VerifierLink
from protos.dragoman.v1 import dragoman_pb2 as pb
from protos.dragoman.v1 import dragoman_pb2_grpc as pb_grpc
from speculation.errors import (
    AccessError,
    ConnectionFailedError,
    DragomanError,
    InputError,
    LimitExceededError,
    VersionMismatchError,
    WrongServiceError,
)
from transport import codec
from transport.address import Address
from transport.backoff import Backoff
from transport.bundles import bundled, unbundled
from transport.channels import open_channel
from transport.security import Security
from transport.silence import unless_silent
from transport.status import explain

log = logging.getLogger(__name__)

#: The verifier pings: a link that is silent for so long, in seconds, is dead, though TCP would wait for minutes.
VERIFIER_SILENCE_SECONDS = 3.0
#: In which a call that broke tells why, in seconds.
_LAST_WORDS_SECONDS = 0.5
#: Times the longest pause between two attempts, after one that was refused.
_REFUSED_PAUSE = 10


class DrafterClient:
    """Serves one verifier with one drafter until cancelled. ``security`` None: as the environment says."""

    def __init__(
        self,
        drafter: Drafter,
        verifier: Address,
        *,
        name: str,
        max_sessions: int = 4,
        seconds_per_token: float = 0.0,
        instance: str = "",
        thread: ThreadPoolExecutor | None = None,
        backoff: Backoff | None = None,
        security: Security | None = None,
        on_connected: Callable[[pb.Welcome], None] = lambda welcome: None,
    ) -> None:
        self.attached = False
        self._was_attached = False
        self._drafter = drafter
        self._verifier = verifier
        backoff = backoff or Backoff()
        self._dialling, self._knocking = Dialling(backoff), Knocking(verifier)
        self._looking_up: asyncio.Task[None] | None = None
        self._knocks: asyncio.Task[bool] | None = None
        self._refused_pause = _REFUSED_PAUSE * backoff.longest
        self._security = security or Security.from_environment()
        self._on_connected = on_connected
        self._hello = hello_of(drafter, name, max_sessions, seconds_per_token, instance)
        self._pause = 0.0
        self._refused = False  # since it was last attached
        self._bundles = False  # what waits together is sent as one
        self._link: VerifierLink | None = None
        # One thread: a drafter is used from one thread at a time, over all connections.
        self._own_thread = thread is None
        self._thread = thread or ThreadPoolExecutor(max_workers=1, thread_name_prefix="drafter")

    @property
    def sessions(self) -> int:
        """Sessions that it drafts for now."""
        return self._link.sessions if self._link is not None else 0

    @property
    def seconds_per_token(self) -> float:
        """Time per drafted token as of now."""
        return self._link.seconds_per_token if self._link is not None else self._hello.seconds_per_token

    async def run(self) -> None:
        """Dial, assist, dial again. Returns only by cancellation.

        Raises VersionMismatchError or InputError if the verifier refuses this drafter, WrongServiceError if something
        else listens there, AccessError if TLS or a certificate keeps the two apart: dialling again cannot help.
        """
        try:
            while True:
                try:
                    await self._assist_once()
                    ending = "stopped" if self._pause else "ended the stream"
                    log.warning("the verifier at %s %s; dialling again", self._verifier, ending)
                except (VersionMismatchError, InputError):
                    raise
                except DragomanError as error:
                    if isinstance(error, (WrongServiceError, AccessError)) and not self._was_attached:
                        # A mistaken address or file; later, a port that another program has for a while, or a
                        # certificate that is about to be renewed.
                        raise
                    self._complain(error)
                await asyncio.sleep(max(self._pause, self._dialling.ended(time.monotonic())))
                self._pause = 0.0
        finally:
            _cancel(self._looking_up)
            if self._own_thread:
                self._thread.shutdown(wait=False, cancel_futures=True)

    def _complain(self, error: DragomanError) -> None:
        """Said once per outage, not once per attempt; and once more that this side is refused, which somebody has to
        mend, and which a next attempt in a moment does not."""
        refused = isinstance(error, (AccessError, LimitExceededError))
        news = self._dialling.failures == 0 or (refused and not self._refused)
        log.log(logging.WARNING if news else logging.DEBUG, "%s; dialling again", error)
        if refused:
            self._refused, self._pause = True, self._refused_pause

    async def _assist_once(self) -> None:
        self._dialling.begin(time.monotonic())
        async with open_channel(self._verifier, self._security) as channel:
            stub = pb_grpc.VerifierServiceStub(channel)
            outbox: asyncio.Queue[pb.AssistRequest] = asyncio.Queue()
            outbox.put_nowait(pb.AssistRequest(hello=self._hello))
            call: grpc.aio.StreamStreamCall = stub.Assist()
            link = VerifierLink(
                drafter=self._drafter,
                outbox=outbox,
                thread=self._thread,
                seconds_per_token=self._hello.seconds_per_token,
            )
            self._link, self._bundles = link, False
            worker = asyncio.create_task(link.work())
            reader = asyncio.create_task(self._read(call, link))
            writer = asyncio.create_task(self._write(call, outbox))
            tasks = (worker, reader, writer)
            try:
                await self._until_one_ends(tasks)
                if writer.done() and not reader.done():
                    # A write that failed only says that the stream is over; reading says why.
                    await asyncio.wait((reader,), timeout=_LAST_WORDS_SECONDS)
                for task in tasks:
                    if task.done():
                        task.result()
            except grpc.RpcError as error:
                raise await explain(error, channel, self._verifier, who="verifier", security=self._security) from error
            finally:
                self.attached, self._link = False, None
                for task in tasks:
                    task.cancel()
                call.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await link.close()
                # What a task raised holds this frame, which holds the task: a circle, in which the connection would
                # stay open until Python looks for circles.
                del worker, reader, writer, tasks, task

    async def _until_one_ends(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Raises ConnectionFailedError for an attempt that began too early."""
        if self._dialling.may_be_lost:
            self._knocks = knocks = asyncio.create_task(self._knocking.attempt_lost())
            try:
                await asyncio.wait((*tasks, knocks), return_when=asyncio.FIRST_COMPLETED)
                if knocks.done() and not knocks.cancelled() and knocks.result() and not self.attached:
                    self._dialling.lost()
                    raise ConnectionFailedError(f"the verifier at {self._verifier} was not there when it was dialled")
            finally:
                knocks.cancel()
                await asyncio.gather(knocks, return_exceptions=True)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

    async def _read(self, call: grpc.aio.StreamStreamCall, link: VerifierLink) -> None:
        # By read and write, not by iterators: grpc.aio leaves those behind, half run, when a call is cancelled.
        while True:
            message = await unless_silent(call.read(), VERIFIER_SILENCE_SECONDS)
            if message is None:
                silent = f"has been silent for {VERIFIER_SILENCE_SECONDS:g} s"
                raise ConnectionFailedError(f"the verifier at {self._verifier} {silent}")
            if not isinstance(message, pb.AssistResponse):
                return  # the end of the stream
            for each in unbundled(message):
                self._receive(each, link)

    def _receive(self, message: pb.AssistResponse, link: VerifierLink) -> None:
        match message.WhichOneof("message"):
            case "welcome":
                self._bundles = message.welcome.takes_several
                codec.check_version(message.welcome.protocol_version, who=f"the verifier at {self._verifier}")
                self._dialling.reached()
                self._refused = False
                self.attached = self._was_attached = True
                _cancel(self._knocks, self._looking_up)
                self._looking_up = asyncio.create_task(self._knocking.look_up())
                log.info("assisting %s at %s", message.welcome.model, self._verifier)
                self._on_connected(message.welcome)
            case "drain":
                self._pause = message.drain.reconnect_after_ms / 1000
            case _:
                link.receive(message)

    async def _write(self, call: grpc.aio.StreamStreamCall, outbox: asyncio.Queue[pb.AssistRequest]) -> None:
        try:
            while True:
                messages = [await outbox.get()]
                while not outbox.empty():
                    messages.append(outbox.get_nowait())
                for message in bundled(messages, takes_several=self._bundles):
                    await call.write(message)
        except asyncio.InvalidStateError:
            return  # the call is over, and the reader knows why


def _cancel(*tasks: asyncio.Task[Any] | None) -> None:
    for task in tasks:
        if task is not None:
            task.cancel()
