"""Bearer tokens, for those to whom a certificate is too much: a server keeps their digests, a client has the token.

A line of the server's file is a name, a role and a digest. A token is 32 random bytes, so that a plain SHA-256 tells
nothing about it. The file is looked at again at every call: who is taken out of it is out at once.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from speculation.errors import AccessError, InputError
from transport.identity import Identity, Role
from transport.watched_file import WatchedFile, read_entries

#: Where a client's token may be, beside a file.
TOKEN_VARIABLE: Final = "DRAGOMAN_TOKEN"
_PREFIX: Final = "dragoman-"
_BEARER: Final = "Bearer "
_LONGEST: Final = 256


@dataclass(frozen=True, slots=True)
class Token:
    """Whose it is, and its digest in hex."""

    holder: Identity
    digest: str

    @property
    def line(self) -> str:
        """As the file has it."""
        return f"{self.holder.name} {self.holder.role} sha256:{self.digest}"


def new_token(holder: Identity) -> tuple[str, Token]:
    """(the secret, which is kept nowhere here, and what a server keeps of it)."""
    secret = _PREFIX + secrets.token_urlsafe(32)
    return secret, Token(holder, _digest(secret))


def read_tokens(path: Path) -> list[Token]:
    """Raises InputError, which names the line."""
    return read_entries(path, _token_of, field="tokens", meaning="name, role and digest", command="tokens add")


def _token_of(line: str) -> Token:
    """Raises ValueError or InputError."""
    name, role, digest = line.split()
    kind, _, digits = digest.partition(":")
    if kind != "sha256" or len(bytes.fromhex(digits)) != hashlib.sha256().digest_size:
        raise ValueError(digest)
    return Token(Identity(Role(role), name), digits.lower())


def find_holder(secret: str, tokens: Iterable[Token]) -> Identity | None:
    """Whose token it is. All are compared, each in a time that tells nothing."""
    digest, holder = _digest(secret), None
    for token in tokens:
        if hmac.compare_digest(token.digest, digest):
            holder = token.holder
    return holder


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class TokenFile(WatchedFile[list[Token]]):
    """The server's file, for any thread. Raises InputError if it cannot be read to begin with."""

    def __init__(self, path: str) -> None:
        super().__init__(path, read_tokens)

    def holder(self, authorization: str | None) -> Identity:
        """Of a call with this header. Raises AccessError for none, and for a token that is not in the file."""
        remedy = "give the token of `dragoman tokens add` with --token-file, or in DRAGOMAN_TOKEN"
        if authorization is None:
            raise AccessError("a token is needed", remedy=remedy)
        secret = authorization.removeprefix(_BEARER)
        found = find_holder(secret, self.newest() or ()) if len(secret) <= _LONGEST else None
        if found is None:
            raise AccessError("the token is not known here, or no longer", remedy=remedy)
        return found


def own_token(path: str | None) -> str | None:
    """This side's, from a file or the environment; None: it has none. Raises InputError."""
    if path is None:
        found = os.environ.get(TOKEN_VARIABLE, "").strip()
        return _checked(found, TOKEN_VARIABLE, None) if found else None
    try:
        return _checked(Path(path).read_text("utf-8").strip(), "token-file", path)
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        raise InputError("token-file", path, problem, remedy="check the path, and who may read it") from error
    except UnicodeDecodeError as error:
        raise InputError("token-file", path, "holds no token", remedy="`dragoman tokens add` makes one") from error


def _checked(secret: str, field: str, path: str | None) -> str:
    if not (secret.isascii() and secret.isprintable() and 0 < len(secret) <= _LONGEST and " " not in secret):
        raise InputError(field, path, "holds no token", remedy="`dragoman tokens add` makes one")
    return secret


def authorization_of(secret: str) -> str:
    """The header of a call."""
    return _BEARER + secret
