"""Whether an attempt to connect was begun too early: noticed sooner than by the attempt itself.

What it sends while the network is gone is lost, and TCP sends it again after one second, and after two more. So
connections are begun beside it, the first together with it and then several a second, each with as much time as it has:
the way may have become longer. They carry nothing, and end as soon as one stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any, Final, NamedTuple

from transport.address import Address
from transport.channels import proxy_variable
from transport.grpc_options import CONNECT_SECONDS

#: Between two of them.
KNOCK_SECONDS: Final = 0.1


class _Place(NamedTuple):
    family: int
    where: Any  # as sockets of that family have it


class Knocking:
    """At one verifier. Its name is looked up while it is there: without a network a lookup may take many seconds."""

    def __init__(self, verifier: Address) -> None:
        self._verifier = verifier
        self._places: list[_Place] = []

    async def look_up(self) -> None:
        """Where to knock from now on: nowhere, if a proxy lies between. A failure leaves what was known."""
        loop = asyncio.get_running_loop()
        if proxy_variable(self._verifier) is not None:
            return
        with contextlib.suppress(OSError):
            found = await loop.getaddrinfo(self._verifier.host, self._verifier.port, type=socket.SOCK_STREAM)
            self._places = [_Place(family, where) for family, _, _, _, where in found]

    async def attempt_lost(self) -> bool:
        """Begun together with an attempt; returns once a connection stands. True: it was begun later, while the first,
        begun with the attempt, still has no answer. So an attempt gets through that begins now.

        Runs until it is cancelled if none ever stands. Where it is not known where to knock nothing is lost.
        """
        places, stands = self._places, asyncio.Event()
        first = [asyncio.create_task(_knock(place, stands)) for place in places]
        later: list[asyncio.Task[bool]] = []
        try:
            while places and not stands.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(KNOCK_SECONDS):
                        await stands.wait()
                        break
                later = [knock for knock in later if not knock.done()]
                later += [asyncio.create_task(_knock(place, stands)) for place in places]
            return stands.is_set() and not any(knock.done() and knock.result() for knock in first)
        finally:
            for knock in (*first, *later):
                knock.cancel()
            await asyncio.gather(*first, *later, return_exceptions=True)


async def _knock(place: _Place, stands: asyncio.Event) -> bool:
    with contextlib.suppress(OSError), socket.socket(place.family, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        async with asyncio.timeout(CONNECT_SECONDS):
            await asyncio.get_running_loop().sock_connect(sock, place.where)
        stands.set()
        return True
    return False
