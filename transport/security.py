"""How connections are protected: the files of TLS, or plaintext where that is allowed.

One ``Security`` stands for a process. What it serves: with a certificate and its key in TLS, with an authority as well
in mutual TLS, which only takes peers whose certificates that authority signed. What it dials: with an authority in TLS,
whose servers must show certificates signed by it for the host that is dialled; its own certificate it shows to servers
that ask. Without, plaintext: on loopback, and elsewhere only if it is allowed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field

from speculation.errors import InputError
from transport.address import Address
from transport.settings import Settings

#: Each setting is also a variable of the environment, DRAGOMAN_TLS_CERT and so on.
PREFIX: Final = "DRAGOMAN_"
#: The settings that are files.
FILES: Final = ("tls_cert", "tls_key", "tls_ca")
_NAMES: Final = (*FILES, "tls_revoked", "tokens", "token_file")
#: Of the environment, but for the switch.
VARIABLES: Final = tuple(PREFIX + name.upper() for name in _NAMES)
_SWITCH: Final = {"": False, "0": False, "false": False, "off": False, "1": True, "true": True, "on": True}


def _path(given: object) -> object:
    return os.fspath(given) if isinstance(given, os.PathLike) else given


#: A file's name.
PemFile = Annotated[str | None, Field(min_length=1), BeforeValidator(_path)]


class Security(Settings):
    """See ``transport/security.py``. Relative names are of the process's folder."""

    tls_cert: PemFile = Field(default=None, description="Own certificate, a PEM file; `dragoman certs` makes one")
    tls_key: PemFile = Field(default=None, description="Key of --tls-cert, a PEM file")
    tls_ca: PemFile = Field(
        default=None, description="Authority that the other side's certificate must be signed by, a PEM file"
    )
    tls_revoked: PemFile = Field(
        default=None,
        description="Of a server in mutual TLS: certificates not to take; `dragoman certs revoke` makes it",
    )
    tokens: PemFile = Field(
        default=None, description="Of a server: callers must have a token of this file; `dragoman tokens` makes it"
    )
    token_file: PemFile = Field(
        default=None, description="Own token, a file; the token itself may be in DRAGOMAN_TOKEN"
    )
    allow_plaintext: bool = Field(default=False, description="Reach other machines although nothing is encrypted")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Raises InputError for a variable that cannot be."""
        return cls().or_environment(environment)

    def or_environment(self, environment: Mapping[str, str] | None = None) -> Self:
        """These settings, and what they leave out as the environment has it. Raises InputError."""
        variables = os.environ if environment is None else environment
        found: dict[str, Any] = {}
        for name in _NAMES:
            written = variables.get(PREFIX + name.upper(), "")
            if getattr(self, name) is None and written:
                found[name] = written
        switch = variables.get(f"{PREFIX}ALLOW_PLAINTEXT", "")
        if switch.lower() not in _SWITCH:
            remedy = "1: plaintext to and from other machines is allowed"
            raise InputError(f"{PREFIX}ALLOW_PLAINTEXT", switch, "is neither 1 nor 0", remedy=remedy)
        found["allow_plaintext"] = self.allow_plaintext or _SWITCH[switch.lower()]
        return self.model_copy(update=found)

    @property
    def serves_tls(self) -> bool:
        return self.tls_cert is not None

    @property
    def asks_for_certificates(self) -> bool:
        """Whether what it serves is in mutual TLS. Those with tokens need no certificates."""
        return self.serves_tls and self.tls_ca is not None and self.tokens is None

    @property
    def dials_tls(self) -> bool:
        return self.tls_ca is not None

    def check_listening(self, listen: Address) -> None:
        """Raises InputError if it may not serve there so."""
        self._check_pair()
        if self.tls_ca is not None and self.tls_cert is None:
            remedy = "add --tls-cert and --tls-key, which a server needs for TLS"
            raise InputError("tls-ca", self.tls_ca, "comes without a certificate of this server's own", remedy=remedy)
        if self.tls_revoked is not None and not self.asks_for_certificates:
            remedy = "add --tls-cert, --tls-key and --tls-ca, and leave out --tokens"
            raise InputError("tls-revoked", self.tls_revoked, "comes without mutual TLS", remedy=remedy)
        if self.tokens is not None and self.tls_cert is None:
            remedy = "add --tls-cert and --tls-key: whoever sees a token has it"
            raise InputError("tokens", self.tokens, "comes without TLS", remedy=remedy)
        if not (self.serves_tls or listen.loopback or self.allow_plaintext):
            raise InputError(
                "listen",
                str(listen),
                "can be reached by other machines, and the connection is not encrypted",
                remedy="add --tls-cert and --tls-key (`dragoman certs` makes them), listen on 127.0.0.1, "
                "or add --allow-plaintext if the network is trusted",
            )

    def check_dialling(self, address: Address, *, who: str) -> None:
        """Raises InputError if it may not dial that address so. ``who`` is to be there: verifier or coordinator."""
        self._check_pair()
        if self.tls_cert is not None and self.tls_ca is None:
            remedy = f"add --tls-ca, the authority that signed the {who}'s certificate"
            raise InputError(
                "tls-cert", self.tls_cert, "comes without an authority to check the other side", remedy=remedy
            )
        if self.token_file is not None and not self.dials_tls:
            remedy = "add --tls-ca: a token is only sent in TLS"
            raise InputError("token-file", self.token_file, "comes without TLS", remedy=remedy)
        if not (self.dials_tls or address.reaches_this_machine or self.allow_plaintext):
            raise InputError(
                who,
                str(address),
                "is another machine, and the connection would not be encrypted",
                remedy="add --tls-ca (`dragoman certs` makes an authority), dial a tunnel's end at 127.0.0.1, "
                "or add --allow-plaintext if the network is trusted",
            )

    def _check_pair(self) -> None:
        for name, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
            if getattr(self, name) is not None and getattr(self, other) is None:
                option, missing = (part.replace("_", "-") for part in (name, other))
                raise InputError(option, getattr(self, name), f"comes without --{missing}", remedy=f"add --{missing}")
