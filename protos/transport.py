"""What both ends of the wire must agree on: protocol version, channel and server settings, limits.

Keepalive is on from both sides: without it a client behind a link that went silent notices only after half a
minute, with it after ``keepalive_timeout`` (gRPC sets TCP_USER_TIMEOUT to it). The server must allow the clients'
ping rate, or it answers with GOAWAY too_many_pings.
"""

from __future__ import annotations

import ipaddress
import random
import re
from dataclasses import dataclass

from speculation.errors import InputError

#: Raised when a change is made that an older peer would misunderstand.
PROTOCOL_VERSION = 1

#: A message holds at most a prompt; spans and verdicts are some kilobytes at most.
MAX_MESSAGE_BYTES = 4 << 20
#: Of a vocabulary's table in one message.
CHUNK_BYTES = 256 << 10

KEEPALIVE_TIME_MS = 10_000
KEEPALIVE_TIMEOUT_MS = 4_000

DEFAULT_PORT = 50061
COORDINATOR_PORT = 50060


@dataclass(frozen=True, slots=True)
class WireLimits:
    """What one drafter may send. ``span_bytes`` and ``pool_bytes`` are of text, ``pool_bytes`` a session's.

    The rest is what a client may send: its prompt or messages, its own draft, its stop strings in all, and the text
    that it received before. Together they fit into a message; and so does an offer to a drafter, prompt and text.
    """

    span_bytes: int = 1024
    pool_bytes: int = 4096
    malformed_messages: int = 100
    span_drawn_tokens: int = 8
    prompt_bytes: int = MAX_MESSAGE_BYTES // 2
    prediction_bytes: int = MAX_MESSAGE_BYTES // 4
    received_bytes: int = MAX_MESSAGE_BYTES // 8
    stop_bytes: int = MAX_MESSAGE_BYTES // 64


def channel_options() -> list[tuple[str, int]]:
    """For every client channel: prompt reconnects, and a dead link noticed within seconds."""
    return [
        ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 500),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ]


def server_options() -> list[tuple[str, int]]:
    """For the server: the same keepalive, and no penalty for the clients' pings."""
    return [
        ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_TIME_MS // 2),
        ("grpc.http2.max_ping_strikes", 0),
        # Two servers silently sharing a port would each get half of the connections.
        ("grpc.so_reuseport", 0),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ]


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds to wait before dialling again: grows by ``factor`` up to ``longest``, with 20 % jitter."""

    shortest: float = 0.2
    longest: float = 0.4
    factor: float = 1.3

    def delay(self, failures: int) -> float:
        # An outage of an hour is thousands of failures: more than a power of a float can stand.
        return min(self.longest, self.shortest * self.factor ** min(failures, 64)) * random.uniform(0.8, 1.2)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Address:
    """``host:port``; IPv6 hosts in brackets."""

    host: str
    port: int

    @classmethod
    def parse(
        cls, text: str, *, field: str, allow_port_zero: bool = False, default_port: int = DEFAULT_PORT
    ) -> Address:
        """A number alone is a port of 127.0.0.1. Raises InputError, which names ``field``."""
        text = text.strip()
        host, colon, port = text.rpartition(":")
        if text.isdecimal():
            host, port = "127.0.0.1", text
        elif not colon or text.endswith("]"):
            host, port = text, str(default_port)
        bare = host.removeprefix("[").removesuffix("]")
        remedy = f"write host:port, for example 127.0.0.1:{default_port}"
        if ":" in bare and not (host.startswith("[") and _is_ip(bare)):
            problem = "is not an address; an IPv6 host stands in brackets"
            raise InputError(field, text, problem, remedy=f"write [host]:port, for example [::1]:{default_port}")
        if not bare or any(c in "/[]" or c.isspace() for c in bare):
            raise InputError(field, text, "is not an address", remedy=remedy)
        if not re.fullmatch("[0-9]{1,5}", port) or not (0 if allow_port_zero else 1) <= int(port) <= 65535:
            raise InputError(field, text, "has no valid port", remedy=remedy)
        return cls(bare, int(port))

    @property
    def loopback(self) -> bool:
        if self.host.rstrip(".").lower() == "localhost":
            return True
        try:
            ip = ipaddress.ip_address(self.host)
        except ValueError:
            return False
        mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
        return (mapped or ip).is_loopback

    @property
    def every_interface(self) -> bool:
        """Whether it stands for all addresses of this machine, when listened at."""
        return _is_ip(self.host) and ipaddress.ip_address(self.host).is_unspecified

    @property
    def reaches_this_machine(self) -> bool:
        """Whether dialling it never leaves this machine."""
        return self.loopback or self.every_interface

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
