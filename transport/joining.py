"""How a verifier or a drafter belongs to a coordinator: it dials out, registers, reports, and takes orders.

The coordinator is a convenience, never a need: whatever becomes of it, the service that joined goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable

import grpc

from protos.dragoman.v1 import dragoman_pb2 as pb
from protos.dragoman.v1 import dragoman_pb2_grpc as pb_grpc
from speculation.errors import (
    AccessError,
    ConnectionFailedError,
    DragomanError,
    InputError,
    VersionMismatchError,
    WrongServiceError,
)
from transport import codec
from transport.address import Address
from transport.backoff import Backoff
from transport.channels import open_channel
from transport.security import Security
from transport.silence import unless_silent
from transport.status import explain

log = logging.getLogger(__name__)

#: The coordinator says something every second: one that is silent for so long, in seconds, is dead or frozen.
COORDINATOR_SILENCE_SECONDS = 4.0
#: Whatever the coordinator asks for, reports are this far apart, in seconds.
SHORTEST_REPORT, LONGEST_REPORT = 0.05, 2.0
#: Seconds that a goodbye may take.
LEAVE_SECONDS = 0.5

#: An address, or someone to ask for it whenever the link is to be opened: a coordinator may come back elsewhere.
#: Who is asked may raise DragomanError, and is asked again later.
AddressSource = Address | Callable[[], Awaitable[Address]]


class CoordinatorLink:
    """One member's place in the fleet.

    ``registration`` is sent first on every connection. ``report`` makes the message that is due, a VerifierReport or
    a DrafterReport; ``on_order`` is given placement, plan and attach orders. Both are called in the event loop, must
    not wait, and may raise DragomanError, which is logged. ``on_joined`` is called once per connection.
    ``security`` None: as the environment says.
    """

    def __init__(
        self,
        coordinator: AddressSource,
        registration: pb.Registration,
        report: Callable[[], pb.JoinRequest],
        on_order: Callable[[pb.JoinResponse], None],
        *,
        on_joined: Callable[[pb.Joined], None] = lambda joined: None,
        backoff: Backoff | None = None,
        security: Security | None = None,
        silence_seconds: float = COORDINATOR_SILENCE_SECONDS,
    ) -> None:
        self.joined = False
        #: Why the coordinator refuses this member, unless it took it in before.
        self.refusal: DragomanError | None = None
        self._was_joined = False
        self._address_source = coordinator
        self._coordinator = coordinator if isinstance(coordinator, Address) else None
        self._registration = registration
        self._report = report
        self._on_order = on_order
        self._on_joined = on_joined
        self._backoff = backoff or Backoff(longest=2.0)
        self._security = security or Security.from_environment()
        self._silence_seconds = silence_seconds
        self._report_seconds = SHORTEST_REPORT
        self._may_report = asyncio.Event()
        self._leaving = asyncio.Event()
        self._failures = 0
        self._refused = False  # since it last joined
        self._complaint = ""

    async def run(self) -> None:
        """Join, and again whenever the link ends, until cancelled; then it takes leave, within half a second.

        Returns if the coordinator refuses this member, because asking again cannot help. That is logged as an error.
        """
        while True:
            try:
                await self._join_once()
                log.info("the coordinator at %s ended the stream; joining again", self._coordinator)
            except (WrongServiceError, AccessError) as error:
                if not self._was_joined:
                    log.error("%s; going on without a coordinator", error)
                    self.refusal = error
                    return
                # What was said of this outage may have been that the coordinator stopped.
                news = self._failures == 0 or not self._refused
                log.log(logging.WARNING if news else logging.DEBUG, "%s; trying again", error)
                self._refused = True
            except (VersionMismatchError, InputError) as error:
                log.error("the coordinator at %s refuses: %s; going on without it", self._coordinator, error)
                self.refusal = None if self._was_joined else error
                return
            except DragomanError as error:
                # Said once per outage, not once per attempt.
                log.log(logging.WARNING if self._failures == 0 else logging.DEBUG, "%s; trying again", error)
            await asyncio.sleep(self._backoff.delay(self._failures))
            self._failures += 1

    async def _join_once(self) -> None:
        self._may_report.clear()
        self._leaving.clear()
        if not isinstance(self._address_source, Address):
            self._coordinator = await self._address_source()
        assert self._coordinator is not None
        async with open_channel(self._coordinator, self._security, who="coordinator") as channel:
            call: grpc.aio.StreamStreamCall = pb_grpc.CoordinatorServiceStub(channel).Join()
            reader = asyncio.create_task(self._read(call))
            writer = asyncio.create_task(self._write(call))
            try:
                await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
                if writer.done() and not reader.done():
                    # A write that failed only says that the stream is over; reading says why.
                    await asyncio.wait((reader,), timeout=LEAVE_SECONDS)
                for task in (reader, writer):
                    if task.done():
                        task.result()
            except asyncio.CancelledError:
                self._leaving.set()
                if self.joined:
                    await asyncio.wait((reader, writer), timeout=LEAVE_SECONDS)
                raise
            except grpc.RpcError as error:
                raise await explain(
                    error, channel, self._coordinator, who="coordinator", security=self._security
                ) from error
            finally:
                self.joined = False
                for task in (reader, writer):
                    task.cancel()
                call.cancel()
                await asyncio.gather(reader, writer, return_exceptions=True)
                # Or what one of them raised would hold this frame, which holds it, and the connection would stay open
                # until Python looks for such circles.
                del reader, writer, task

    async def _read(self, call: grpc.aio.StreamStreamCall) -> None:
        while True:
            message = await unless_silent(call.read(), self._silence_seconds)
            if message is None:
                silent = f"has been silent for {self._silence_seconds:g} s"
                raise ConnectionFailedError(f"the coordinator at {self._coordinator} {silent}")
            if not isinstance(message, pb.JoinResponse):
                return  # the end of the stream
            if message.WhichOneof("message") == "joined":
                self._take_in(message.joined)
            else:
                try:
                    self._on_order(message)
                except DragomanError as error:
                    self._complain("an order of the coordinator cannot be carried out", error)

    def _take_in(self, joined: pb.Joined) -> None:
        codec.check_version(joined.protocol_version, who=f"the coordinator at {self._coordinator}")
        asked = joined.report_seconds if math.isfinite(joined.report_seconds) else LONGEST_REPORT
        self._report_seconds = min(max(asked, SHORTEST_REPORT), LONGEST_REPORT)
        if not self.joined:
            self.joined = self._was_joined = True
            self._failures, self._refused = 0, False
            self._may_report.set()
            log.info("joined the coordinator at %s", self._coordinator)
            self._on_joined(joined)

    async def _write(self, call: grpc.aio.StreamStreamCall) -> None:
        try:
            await call.write(pb.JoinRequest(registration=self._registration))
            await self._may_report.wait()
            while not self._leaving.is_set():
                try:
                    request = self._report()
                except DragomanError as error:
                    self._complain("nothing to report to the coordinator", error)
                else:
                    await call.write(request)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._report_seconds):
                        await self._leaving.wait()
            # So that nobody has to wait for reports that will not come.
            await call.write(pb.JoinRequest(leave=pb.Leave()))
            await call.done_writing()
        except asyncio.InvalidStateError:
            return  # the call is over, and the reader knows why

    def _complain(self, what: str, error: DragomanError) -> None:
        """Warn, but not four times a second about the same."""
        level = logging.DEBUG if str(error) == self._complaint else logging.WARNING
        self._complaint = str(error)
        log.log(level, "%s: %s", what, error)
