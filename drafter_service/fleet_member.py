"""A drafter as a member of a fleet: it assists whichever verifiers the coordinator names, over one stream each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from drafter_service.client import DrafterClient
from drafter_service.draft_source import Drafter, HasNotes
from protos.dragoman.v1 import dragoman_pb2 as pb
from speculation.errors import AccessError, DragomanError, WrongServiceError
from transport.address import Address
from transport.backoff import Backoff
from transport.joining import AddressSource, CoordinatorLink
from transport.limits import PROTOCOL_VERSION
from transport.security import Security
from transport.version import VERSION

log = logging.getLogger(__name__)


class DrafterMember:
    """Use from one event loop. If the coordinator goes away, the drafter goes on assisting whom it assists.

    ``security``: of the connections to the coordinator and to verifiers; None: as the environment says.
    """

    def __init__(
        self,
        drafter: Drafter,
        coordinator: AddressSource,
        *,
        instance: str,
        name: str,
        max_sessions: int = 4,
        seconds_per_token: float = 0.0,
        backoff: Backoff | None = None,
        security: Security | None = None,
        on_joined: Callable[[pb.Joined], None] = lambda joined: None,
    ) -> None:
        self._drafter = drafter
        self._instance = instance
        self._name = name
        self._max_sessions = max_sessions
        self._seconds_per_token = seconds_per_token
        self._backoff = backoff
        self._security = security or Security.from_environment()
        self._clients: dict[str, tuple[DrafterClient, asyncio.Task[None]]] = {}
        self._leaving: set[asyncio.Task[None]] = set()  # verifiers that it was told to leave
        # All streams draft in one thread: a drafter is used from one thread at a time.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="drafter")
        registration = pb.Registration(
            protocol_version=PROTOCOL_VERSION,
            instance=instance,
            name=name,
            version=VERSION,
            model=drafter.model_name,
            vocab_size=drafter.vocab_size,
            vocab_hash=drafter.vocab_hash,
            max_sessions=max_sessions,
            drafter=pb.DrafterKind(seconds_per_token=seconds_per_token),
            notes=drafter.notes if isinstance(drafter, HasNotes) else (),
        )
        self._link = CoordinatorLink(
            coordinator=coordinator,
            registration=registration,
            report=self.report,
            on_order=self.carry_out,
            on_joined=on_joined,
            backoff=backoff,
            security=self._security,
        )

    async def run(self) -> None:
        """Assist as ordered until cancelled. Raises DragomanError if the coordinator refuses it at once."""
        try:
            await self._link.run()
            if self._link.refusal is not None:
                raise self._link.refusal
            await asyncio.Event().wait()  # refused later: whom it assists already, it goes on assisting
        finally:
            tasks = [task for _, task in self._clients.values()]
            for task in tasks:
                task.cancel()
            # Those that leave were cancelled before; once more would break off what they close.
            await asyncio.gather(*tasks, *self._leaving, return_exceptions=True)
            self._thread.shutdown(wait=False, cancel_futures=True)

    def report(self) -> pb.JoinRequest:
        clients = {address: client for address, (client, _) in self._clients.items()}
        measured = [client.seconds_per_token for client in clients.values() if client.sessions]
        if measured:  # what was true last is the best guess while nothing is drafted
            self._seconds_per_token = sum(measured) / len(measured)
        report = pb.DrafterReport(
            sessions=sum(client.sessions for client in clients.values()),
            seconds_per_token=self._seconds_per_token,
            attached_to=sorted(address for address, client in clients.items() if client.attached),
        )
        return pb.JoinRequest(drafter=report)

    def carry_out(self, order: pb.JoinResponse) -> None:
        """Assist exactly the verifiers named. Raises InputError for something that is no address."""
        if order.WhichOneof("message") != "attach":
            return
        wanted = {str(Address.parse(verifier, field="verifiers")) for verifier in order.attach.verifiers}
        for address in self._clients.keys() - wanted:
            _, task = self._clients.pop(address)
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
            task.cancel()
        for address in sorted(wanted - self._clients.keys()):
            client = DrafterClient(
                self._drafter,
                Address.parse(address, field="verifiers"),
                name=self._name,
                instance=self._instance,
                max_sessions=self._max_sessions,
                seconds_per_token=self._seconds_per_token,
                backoff=self._backoff,
                security=self._security,
                thread=self._thread,
            )
            self._clients[address] = (client, asyncio.create_task(self._assist(client, address)))

    async def _assist(self, client: DrafterClient, address: str) -> None:
        pause, failures = Backoff(shortest=1.0, longest=10.0), 0
        try:
            while True:
                try:
                    await client.run()
                except (WrongServiceError, AccessError) as error:
                    # A lone drafter was given a wrong address or file; here a port may change hands, a certificate be
                    # renewed.
                    log.log(logging.WARNING if failures == 0 else logging.DEBUG, "%s; dialling again", error)
                await asyncio.sleep(pause.delay(failures))
                failures += 1
        except DragomanError as error:  # it stays listed, so that the same order does not make it dial again
            log.error("not assisting the verifier at %s: %s", address, error)
