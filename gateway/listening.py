"""The sockets that a gateway listens with: at a port of its own, or at one that several gateways share."""

from __future__ import annotations

import socket
from typing import Final

from speculation.errors import InputError
from transport.address import Address
from transport.servers import check_bindable, not_bindable

#: Of the kernel, for what a client has not taken yet: a text is some kilobytes, and a slow client is to be noticed.
_SEND_BUFFER: Final = 256 << 10
#: ``SendLimit`` sees that a client takes nothing when there is more to send. For the end of an answer there is the
#: kernel, which gives a connection up whose client takes nothing for so many seconds more.
_LAST_SEND_SECONDS: Final = 1.0
_LONGEST_MILLISECONDS: Final = (1 << 31) - 1


def listening_socket(
    listen: Address, *, send_timeout: float, shared: bool = False, option: str = "--listen"
) -> socket.socket:
    """A socket that is bound; ``send_timeout`` in seconds.

    ``shared``: other processes of this user may listen there as well, if they share it too (SO_REUSEPORT). The kernel
    then gives each connection to one of them, by a hash of both addresses, and none to a process that has ended or
    closed its socket. ``option``: what a person changes to listen elsewhere.

    Raises ConnectionFailedError if nobody can listen there, InputError if ports cannot be shared on this system.
    """
    if shared:
        if not hasattr(socket, "SO_REUSEPORT"):
            raise InputError(option, str(listen), "cannot be shared: this system has no SO_REUSEPORT")
    else:
        check_bindable(listen, option=option)
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
    except OSError as error:
        raise not_bindable(listen, option, error) from error
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)  # its connections have it too
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # of Linux
            milliseconds = min(int((send_timeout + _LAST_SEND_SECONDS) * 1000), _LONGEST_MILLISECONDS)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        found.bind(where)
    except OSError as error:  # someone else was quicker
        found.close()
        raise not_bindable(listen, option, error) from error
    found.setblocking(False)
    return found
