"""Where a service listens: ``host:port``."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from speculation.errors import InputError

DEFAULT_PORT = 50061
COORDINATOR_PORT = 50060
#: Where health checks alone are answered, if that is asked for.
HEALTH_PORT = 50062


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
